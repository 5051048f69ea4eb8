//! `flux top`: an instance and its running jobs on a terminal, kept up to date (flux-top(1)).
//!
//! [`fetch`] asks, [`screen`] says what it looks like, [`key`] and [`terminal`] are the way to the user; here is what
//! happens when. Instances that were entered lie on a stack: the last one is shown, leaving it shows the one before.

mod fetch;
mod key;
mod screen;
mod terminal;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use client::Events;
use futures::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::args::Args;
use crate::cmd::exec::read_stdin;
use crate::cmd::overlay::When;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use fetch::Instance;
use key::{Decoder, Key};
use screen::{Snapshot, View, draw, drawn, plain};
use terminal::Terminal;

/// How old what is shown may become.
const PERIOD: Duration = Duration::from_secs(2);

/// Watch an instance and its running jobs.
///
/// Keys: j, k and arrows move the cursor, h and l go through the queues, enter shows the instance a job is, q leaves it,
/// d splits inactive jobs by outcome, control-l draws anew.
#[derive(Parser)]
struct Options {
    /// Use color: always, never or auto
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always", default_value = "auto", value_enum)]
    color: When,
    /// Only this queue
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Leave after the first look
    #[arg(long, hide = true)]
    test_exit: bool,
    /// With --test-exit: write the text of the screen to a file
    #[arg(long, hide = true, value_name = "FILE")]
    test_exit_dump: Option<PathBuf>,
    /// The instance: a job or a URI
    #[arg(value_name = "TARGET")]
    target: Option<String>,
}

/// An instance that is shown, or was entered from.
struct Panel {
    instance: Instance,
    view: View,
    queues: Vec<String>,
    heartbeats: Events,
    /// The look that is under way.
    look: Option<BoxFuture<'static, Result<Snapshot, Failure>>>,
}

/// What a key or an event means for the stack of instances.
enum Step {
    Stay,
    Enter(String),
    Leave,
    End,
}

impl Panel {
    async fn open(
        uri: Option<&str>,
        above: &[String],
        queue: Option<String>,
    ) -> Result<Panel, Failure> {
        let instance = Instance::open(uri).await?;
        let heartbeats = instance.handle.events(&["heartbeat.pulse"]).await?;
        let (queues, snapshot) =
            futures::join!(instance.queues(), instance.clone().look(queue.clone()));
        let path = above.iter().cloned().chain(instance.jobid.clone());
        Ok(Panel {
            view: View {
                path: path.collect(),
                identity: instance.identity.clone(),
                snapshot: snapshot?,
                queue,
                has_details: true,
                ..View::default()
            },
            instance,
            queues,
            heartbeats,
            look: None,
        })
    }

    fn begin_look(&mut self) {
        let queue = self.view.queue.clone();
        self.look = Some(Box::pin(self.instance.clone().look(queue)));
    }

    fn seen(&mut self, look: Result<Snapshot, Failure>) {
        self.look = None;
        self.view.beats = false;
        match look {
            Ok(snapshot) => {
                self.view.snapshot = snapshot;
                self.view.trouble = None;
            }
            // A service may be away for a while.
            Err(e) => self.view.trouble = Some(e.message),
        }
    }

    /// Show the queue that is `by` further; before the first and after the last are all.
    fn turn(&mut self, by: isize) {
        let place = |name: &String| self.queues.iter().position(|q| q == name);
        let now = self.view.queue.as_ref().and_then(place);
        let count = self.queues.len() as isize + 1;
        let next = (now.map_or(0, |at| at as isize + 1) + by).rem_euclid(count);
        self.view.queue = match next {
            0 => None,
            n => Some(self.queues[n as usize - 1].clone()),
        };
        self.begin_look();
    }

    fn key(&mut self, key: Key) -> Step {
        if key == Key::Interrupt {
            return Step::End;
        }
        if self.view.notice.take().is_some() {
            return Step::Stay;
        }
        match key {
            Key::Down => self.view.down(),
            Key::Up => self.view.up(),
            Key::Left => self.turn(-1),
            Key::Right => self.turn(1),
            Key::Details => self.view.has_details = !self.view.has_details,
            Key::Quit => return Step::Leave,
            Key::Enter => {
                if let Some(uri) = self.view.job().and_then(|job| job.uri.clone()) {
                    return Step::Enter(uri);
                }
            }
            Key::Redraw | Key::Interrupt | Key::Other => {}
        }
        Step::Stay
    }
}

async fn looked(
    look: &mut Option<BoxFuture<'static, Result<Snapshot, Failure>>>,
) -> Result<Snapshot, Failure> {
    match look {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(top(&options))
}

async fn top(options: &Options) -> Outcome {
    let uri = match &options.target {
        Some(target) => {
            let uri = crate::uri::resolve(target).await;
            Some(uri.context(format!("failed to resolve {target}"))?)
        }
        None => None,
    };
    let first = Panel::open(uri.as_deref(), &[], options.queue.clone()).await?;
    let terminal = Terminal::enter()?;
    let color = options.color.is_on();
    if options.test_exit {
        let lines = draw(&first.view, terminal.size());
        terminal.show(&drawn(&lines, color))?;
        if let Some(path) = &options.test_exit_dump {
            std::fs::write(path, plain(&lines)).context(path.display())?;
        }
        return Ok(0);
    }
    watch(first, &terminal, color).await
}

async fn watch(first: Panel, terminal: &Terminal, color: bool) -> Outcome {
    let mut stack = Stack {
        above: Vec::new(),
        shown: first,
    };
    let mut input = read_stdin();
    let mut decoder = Decoder::default();
    let mut resized = signal(SignalKind::window_change())?;
    let mut ended = signal(SignalKind::terminate())?;
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let panel = &mut stack.shown;
        terminal.show(&drawn(&draw(&panel.view, terminal.size()), color))?;
        tokio::select! {
            bytes = input.recv() => {
                // Without input there is no terminal any more.
                let Some(bytes) = bytes else { return Ok(0) };
                for key in decoder.keys(&bytes) {
                    if key == Key::Redraw {
                        terminal.clear()?;
                    }
                    let step = stack.shown.key(key);
                    if !stack.step(step).await {
                        return Ok(0);
                    }
                }
            }
            look = looked(&mut panel.look) => panel.seen(look),
            beat = panel.heartbeats.next() => match beat {
                Some(_) => panel.view.beats = true,
                None => stack.lost()?,
            },
            _ = period.tick() => if panel.look.is_none() {
                panel.begin_look();
            },
            _ = resized.recv() => {}
            _ = ended.recv() => return Ok(0),
        }
    }
}

/// The instance that is shown, and those it was entered from.
struct Stack {
    above: Vec<Panel>,
    shown: Panel,
}

impl Stack {
    /// Whether there is still something to show.
    async fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Stay => true,
            Step::End => false,
            Step::Leave => self.leave(),
            Step::Enter(uri) => {
                match Panel::open(Some(&uri), &self.shown.view.path, None).await {
                    Ok(panel) => self.above.push(std::mem::replace(&mut self.shown, panel)),
                    Err(e) => self.shown.view.notice = Some(e.message),
                }
                true
            }
        }
    }

    fn leave(&mut self) -> bool {
        match self.above.pop() {
            Some(panel) => {
                self.shown = panel;
                self.shown.begin_look();
                true
            }
            None => false,
        }
    }

    /// The instance that is shown is gone.
    fn lost(&mut self) -> Result<(), Failure> {
        match self.leave() {
            true => {
                self.shown.view.notice = Some("the instance is gone".to_owned());
                Ok(())
            }
            false => Err(Failure::new("lost connection to Flux")),
        }
    }
}
