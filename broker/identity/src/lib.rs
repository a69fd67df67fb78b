//! Puppet certificates: from an ssldir to TLS configurations and the certname of a verified peer.
