//! `flux pmi`: a parallel program that only tries its process manager out.

use std::process::exit;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Parser, Subcommand};
use formats::{Idset, fsd};
use pmi::client::PmiError;
use pmi::library::{Interface, Library};
use pmi::{Client, Process};

use crate::args::Args;
use crate::error::{Failure, Outcome};
use crate::output::outln;

/// Try the process management interface of whatever has started this program.
#[derive(Parser)]
struct Options {
    /// Tell on standard error what is asked, and what comes of it
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = 0)]
    verbose: u8,
    /// Fail when not everything is done after FSD
    #[arg(short, long, value_name = "FSD", value_parser = duration)]
    timeout: Option<Duration>,
    /// How to reach the process manager: simple, libpmi[:PATH], libpmi2[:PATH] or single
    #[arg(long, value_name = "URI", value_parser = method)]
    method: Option<Method>,
    /// Do not use Flux's own libraries
    #[arg(long)]
    libpmi_noflux: bool,
    /// Do with libpmi2 what Cray's needs: base64 for all values, and no keys of Flux's
    #[arg(long)]
    libpmi2_cray: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Meet all other processes
    Barrier {
        /// Meet once before, and print how long the second time took
        #[arg(long)]
        test_timing: bool,
        /// Meet N times
        #[arg(long, alias = "count", value_name = "N", default_value_t = 1)]
        test_count: u32,
        /// Have RANK abort the program instead
        #[arg(long, value_name = "RANK")]
        test_abort: Option<u32>,
    },
    /// Tell all other processes something, and read what they tell
    Exchange {
        /// Do it N times
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u32,
    },
    /// Print entries that the process manager has put
    Get {
        /// The processes that print: an idset or all
        #[arg(long, value_name = "RANKS", default_value = "0", value_parser = ranks)]
        ranks: Ranks,
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

/// `None`: all of them.
type Ranks = std::sync::Arc<Option<Idset>>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    Simple,
    Library(Interface, Option<String>),
    Single,
}

/// Without `--method`: the first that works.
const METHODS: [Method; 4] = [
    Method::Simple,
    Method::Library(Interface::Pmi2, None),
    Method::Library(Interface::Pmi1, None),
    Method::Single,
];

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = fsd::parse(text).map_err(|e| e.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn ranks(text: &str) -> Result<Ranks, String> {
    match text {
        "all" => Ok(None.into()),
        text => text
            .parse::<Idset>()
            .map(|ids| Some(ids).into())
            .map_err(|e| e.to_string()),
    }
}

fn method(text: &str) -> Result<Method, String> {
    let (scheme, path) = match text.split_once(':') {
        Some((scheme, path)) => (scheme, Some(path.to_owned())),
        None => (text, None),
    };
    match (scheme, path) {
        ("simple", None) => Ok(Method::Simple),
        ("single", None) => Ok(Method::Single),
        ("libpmi", path) => Ok(Method::Library(Interface::Pmi1, path)),
        ("libpmi2", path) => Ok(Method::Library(Interface::Pmi2, path)),
        _ => Err("there are simple, libpmi[:PATH], libpmi2[:PATH] and single".to_owned()),
    }
}

impl Method {
    fn name(&self) -> &'static str {
        match self {
            Method::Simple => "simple",
            Method::Library(Interface::Pmi1, _) => "libpmi",
            Method::Library(Interface::Pmi2, _) => "libpmi2",
            Method::Single => "single",
        }
    }

    fn connect(&self, refuse_flux: bool) -> Result<Box<dyn Process>, PmiError> {
        match self {
            Method::Simple => match Client::from_env()? {
                client if client.is_singleton() => Err(PmiError::MissingVariable("PMI_FD")),
                client => Ok(Box::new(client)),
            },
            Method::Single => Ok(Box::new(Client::singleton())),
            Method::Library(interface, path) => {
                let mut library = Library::open(*interface, path.as_deref())?;
                if refuse_flux && library.is_flux() {
                    let text = format!(
                        "{} is Flux's own library",
                        path.as_deref().unwrap_or(interface.file())
                    );
                    return Err(PmiError::Library(text));
                }
                library.init()?;
                Ok(Box::new(library))
            }
        }
    }
}

/// A process whose operations are told, and whose values are wrapped where that is needed.
struct Told {
    process: Box<dyn Process>,
    method: &'static str,
    verbose: bool,
    cray: bool,
}

impl Told {
    fn connect(options: &Options) -> Result<Told, Failure> {
        let verbose = options.verbose > 0;
        let start = |method: &Method, refuse_flux| {
            let name = method.name();
            let outcome = method.connect(refuse_flux);
            if verbose {
                match &outcome {
                    Ok(p) => eprintln!(
                        "{name}: initialize: rank={} size={} name={}: success",
                        p.rank(),
                        p.size(),
                        p.name()
                    ),
                    Err(e) => eprintln!("{name}: initialize: {e}"),
                }
            }
            let cray = options.libpmi2_cray && name == "libpmi2";
            outcome.map(|process| Told {
                process,
                method: name,
                verbose,
                cray,
            })
        };
        if let Some(method) = &options.method {
            return start(method, options.libpmi_noflux).map_err(failure);
        }
        let mut found = METHODS.iter().map(|method| start(method, true));
        // A single process always works.
        found
            .find_map(Result::ok)
            .ok_or_else(|| Failure::new("no method works"))
    }

    fn told<T>(&self, what: &str, outcome: Result<T, PmiError>) -> Result<T, Failure> {
        if self.verbose {
            match &outcome {
                Ok(_) => eprintln!("{}: {what}: success", self.method),
                Err(e) => eprintln!("{}: {what}: {e}", self.method),
            }
        }
        outcome.map_err(failure)
    }

    fn barrier(&mut self) -> Result<(), Failure> {
        let outcome = self.process.barrier();
        self.told("barrier", outcome)
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        let wrapped = if self.cray {
            BASE64.encode(value)
        } else {
            value.to_owned()
        };
        let outcome = self.process.put(key, &wrapped);
        self.told(&format!("put key={key} value={value}"), outcome)
    }

    fn get(&mut self, key: &str) -> Result<String, Failure> {
        let found = match self.cray && key.starts_with("flux.") {
            true => Ok(None),
            false => self.process.get(key),
        };
        let Some(value) = self.told(&format!("get key={key}"), found)? else {
            return Err(Failure::new(format!("get {key}: there is no such key")));
        };
        if !self.cray || key == "PMI_process_mapping" {
            return Ok(value);
        }
        let plain = BASE64
            .decode(&value)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        plain.ok_or_else(|| Failure::new(format!("get {key}: {value:?} is not base64")))
    }

    /// Says on rank 0 what was done by all.
    fn report(&self, what: &str, taken: Option<Duration>) {
        let (name, size) = (self.process.name(), self.process.size());
        let taken = taken.map_or_else(String::new, |t| format!(" in {:.3}s.", t.as_secs_f64()));
        if self.process.rank() == 0 {
            outln!("{name}: completed pmi {what} on {size} tasks{taken}");
        }
    }

    fn exchange(&mut self, round: u32) -> Result<(), Failure> {
        let (rank, size) = (self.process.rank(), self.process.size());
        let name = self.process.name().to_owned();
        let key = |rank| format!("exchange.{round}.{rank}");
        let value = |rank| format!("{name}-{rank}-{size}");
        self.put(&key(rank), &value(rank))?;
        self.barrier()?;
        for other in 0..size {
            let found = self.get(&key(other))?;
            if found != value(other) {
                let key = key(other);
                return Err(Failure::new(format!(
                    "get {key}: {found:?} is not what rank {other} has put"
                )));
            }
        }
        self.barrier()
    }

    fn run(&mut self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Barrier {
                test_timing,
                test_count,
                test_abort,
            } => {
                if *test_abort == Some(self.process.rank()) {
                    let text = format!("flux-pmi: rank {} is aborting", self.process.rank());
                    let outcome = self.process.abort(1, &text);
                    self.told("abort", outcome)?;
                    exit(1);
                }
                for _ in 0..*test_count {
                    if *test_timing {
                        self.barrier()?;
                    }
                    let start = Instant::now();
                    self.barrier()?;
                    self.report("barrier", test_timing.then(|| start.elapsed()));
                }
            }
            Command::Exchange { count } => {
                self.barrier()?;
                for round in 0..*count {
                    let start = Instant::now();
                    self.exchange(round)?;
                    self.report("exchange", Some(start.elapsed()));
                }
            }
            Command::Get { ranks, keys } => {
                for key in keys {
                    let value = self.get(key)?;
                    if ranks
                        .as_ref()
                        .as_ref()
                        .is_none_or(|ranks| ranks.contains(self.process.rank()))
                    {
                        outln!("{value}");
                    }
                }
            }
        }
        Ok(())
    }
}

fn failure(e: PmiError) -> Failure {
    Failure::new(e.to_string())
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    if let Some(timeout) = options.timeout {
        // C libraries cannot be interrupted otherwise.
        std::thread::spawn(move || {
            std::thread::sleep(timeout);
            eprintln!("flux-pmi: not everything was done in the time of --timeout");
            exit(1)
        });
    }
    let mut program = Told::connect(&options)?;
    program.run(&options.command)?;
    let outcome = program.process.finalize();
    if program.verbose && outcome.is_ok() {
        eprintln!("{}: finalize: success", program.method);
    }
    outcome.map(|()| 0).map_err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        assert_eq!(method("libpmi"), Ok(Method::Library(Interface::Pmi1, None)));
        let path = Some("/x:y".to_owned());
        assert_eq!(
            method("libpmi2:/x:y"),
            Ok(Method::Library(Interface::Pmi2, path))
        );
        for bad in ["", "pmix", "simple:/x"] {
            assert!(method(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_program_of_one() {
        for cray in [false, true] {
            let process = Box::new(Client::singleton());
            let mut told = Told {
                process,
                method: "libpmi2",
                verbose: false,
                cray,
            };
            told.exchange(3).unwrap();
            told.put("flux.x", "a b").unwrap();
            assert_eq!(told.get("flux.x").is_err(), cray);
            assert!(told.get("nothing").is_err());
        }
    }
}
