//! `lab up`: a mesh that stays until it is asked to end. A process that dies stays dead, and is said,
//! until `lab restart` asks for it.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::control::{Listener, Request};
use lab::{ENVIRONMENT_FILE, Lab};

use crate::{UpArguments, say, say_what_is_missing, signals};

/// How often the lab looks after its processes.
const LOOK: Duration = Duration::from_millis(200);

/// Requests wait here while one is served; whoever comes later waits in the socket.
const REQUESTS: usize = 8;

pub(crate) fn up(arguments: &UpArguments) -> Result<ExitCode> {
    lab::build()?;
    let interrupted = signals::watch()?.any;
    say_what_is_missing();
    let lab = arguments
        .mesh
        .builder()
        .dir(&arguments.dir)
        .interrupted(interrupted.clone())
        .start()?;
    let requests = listen(&lab)?;
    let file = lab.dir().join(ENVIRONMENT_FILE);
    say(&format!(
        "other shells   . {}; $LAB_BIN/puppet-task show",
        file.display()
    ));
    say("Ctrl-C         ends it");
    ready();
    while !interrupted.load(Ordering::Relaxed) {
        if let Ok(request) = requests.recv_timeout(LOOK) {
            serve(&lab, request);
        }
        for (name, status) in lab.deaths() {
            say(&format!(
                "{name} has ended ({status}); lab restart --dir … {name} starts it again"
            ));
        }
    }
    say("stopping       agents, orchestrator, compilers, primary");
    lab.shut_down();
    Ok(ExitCode::SUCCESS)
}

fn listen(lab: &Lab) -> Result<mpsc::Receiver<Request>> {
    let listener = Listener::bind(lab.dir()).context("cannot listen for lab restart")?;
    let (sender, receiver) = mpsc::sync_channel(REQUESTS);
    // Ends with the process: it holds nothing that has to be given back.
    thread::spawn(move || {
        while let Ok(request) = listener.next() {
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn serve(lab: &Lab, request: Request) {
    let outcome = lab.restart(&request.name);
    match &outcome {
        Ok(()) => say(&format!("{} is ready again", request.name)),
        Err(error) => say(&format!("{} was not started: {error}", request.name)),
    }
    request.answer(outcome.map_err(|error| format!("{:#}", anyhow::Error::from(error))));
}

/// The line that scripts wait for, alone and without colours.
fn ready() {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready")
        .and_then(|()| stdout.flush())
        .unwrap_or_default();
}
