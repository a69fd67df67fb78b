# frozen_string_literal: true

# What Puppet's own Ruby runs for `apply prep` and `apply apply`: fetches the plugins of an environment,
# then prints the node's facts, or applies a catalog and prints the report. The request comes on
# standard input, as JSON; what Puppet has to say goes to standard error.

require 'fileutils'
require 'json'
require 'puppet'
require 'puppet/configurer'
require 'securerandom'

Puppet::Util::Log.newdesttype(:agent) do
  match(:agent)

  def handle(message)
    source = message.source == 'Puppet' ? '' : "#{message.source}: "
    $stderr.puts("#{message.level.to_s.capitalize}: #{source}#{message}")
  end
end

# The node's own puppet.conf, state and caches are neither read nor changed: Puppet has directories of
# its own in `root`, which go with the request. Only the plugins are kept for the next one.
def set_up(request)
  root = request.fetch('root')
  FileUtils.mkdir_p([root, request.fetch('plugins')], mode: 0o700)
  own = (Puppet::Settings::REQUIRED_APP_SETTINGS + [:rundir]).uniq
  settings = own.to_h { |name| [name, File.join(root, name.to_s)] }
  settings.merge!(request.fetch('settings'))
  Puppet.initialize_settings(settings.flat_map { |name, value| ["--#{name}", value] })
  Puppet::Util::Log.newdestination(:agent)
  Puppet[:report] = false
  Puppet[:ignore_plugin_errors] = false
  Puppet[:environment] = request.fetch('environment')
  Puppet.settings.use(:main)
end

# One request at a time changes the plugins of an environment, and shows by the time of the directory
# that they are used.
def fetch_plugins(request, environment)
  File.open(request.fetch('plugins')) do |directory|
    directory.flock(File::LOCK_EX)
    FileUtils.touch(directory.path)
    Puppet::Configurer::PluginHandler.new.download_plugins(environment)
  end
end

def apply(request, environment, facts)
  # Not before the plugins are there: noop would keep those away, too.
  request.fetch('apply_options').each { |name, value| Puppet[name.to_sym] = value }
  catalog = Puppet::Resource::Catalog.from_data_hash(request.fetch('catalog'))
  catalog.environment = environment.name.to_s
  catalog.environment_instance = environment
  Puppet::Pops::Evaluator::DeferredResolver.resolve_and_replace(facts, catalog)
  report = Puppet::Transaction::Report.new(nil, catalog.environment, SecureRandom.uuid)
  Puppet::Configurer.new.run(catalog: catalog.to_ral, report: report, pluginsync: false)
  puts JSON.generate(report.to_data_hash)
  report.exit_status == 1 ? 1 : 0
end

def run(request)
  set_up(request)
  environment = Puppet::Node::Environment.remote(request.fetch('environment'))
  loaders = Puppet::Pops::Loaders.new(environment)
  Puppet.override(current_environment: environment, loaders: loaders) do
    fetch_plugins(request, environment)
    # Facts come first for a catalog, too: whether a provider is suitable depends on them.
    facts = Puppet::Node::Facts.indirection.find(Puppet[:certname], environment: environment)
    next apply(request, environment, facts) if request.fetch('action') == 'apply'

    puts JSON.generate(facts.values)
    0
  end
end

begin
  exit run(JSON.parse($stdin.read))
rescue StandardError => error
  warn "Error: #{error.message}"
  exit 1
end
