# The implementation for Windows. The support files are below $_installdir.
param([String]$language, [String]$name, [String]$_installdir)
$greeting = (Get-Content (Join-Path $_installdir "sample/files/greetings/$language.txt")).Trim()
if (-not $name) { $name = $env:COMPUTERNAME }
@{ greeting = "$greeting $name"; implementation = 'windows' } | ConvertTo-Json -Compress
