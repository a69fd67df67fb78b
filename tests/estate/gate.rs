//! A way to a service that a test can close: TCP that is passed on, or not.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Open at first.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// `https://localhost:PORT`.
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    shut: bool,
    /// The ends of all connections that have been passed on, to be cut.
    passed: Vec<TcpStream>,
}

impl Gate {
    /// A way to the service at `https://NAME:PORT`.
    pub(crate) fn to(service: &str) -> Self {
        let service = service.trim_start_matches("https://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let gate = Self {
            address: format!("https://localhost:{port}"),
            state: Arc::default(),
        };
        let within = gate.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Whoever cannot be passed on is cut off, which is what it would see without us.
                within.pass(&connection, &service).unwrap_or_default();
            }
        });
        gate
    }

    /// Cuts all connections, and lets nobody through.
    pub(crate) fn shut(&self) {
        let mut state = self.lock();
        state.shut = true;
        for stream in state.passed.drain(..) {
            // It may have ended by itself.
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }

    pub(crate) fn open(&self) {
        self.lock().shut = false;
    }

    fn pass(&self, from: &TcpStream, service: &str) -> io::Result<()> {
        let mut state = self.lock();
        if state.shut {
            return Ok(());
        }
        let to = TcpStream::connect(service)?;
        for (source, sink) in [(from, &to), (&to, from)] {
            state.passed.push(source.try_clone()?);
            let (mut source, mut sink) = (source.try_clone()?, sink.try_clone()?);
            thread::spawn(move || {
                // However it ends: the other side must see that it has.
                io::copy(&mut source, &mut sink).unwrap_or_default();
                sink.shutdown(Shutdown::Write).unwrap_or_default();
            });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
