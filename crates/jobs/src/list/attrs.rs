//! Attributes of a job as requests name them and responses carry them.

use formats::JobState;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::job::Job;

macro_rules! attributes {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// An attribute that can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Attr { $($variant),+ }

        impl Attr {
            /// All attributes, in the order in which `all` returns them.
            pub const ALL: &[Attr] = &[$(Attr::$variant),+];

            /// The attribute's name.
            pub fn name(self) -> &'static str {
                match self { $(Attr::$variant => $name),+ }
            }

            fn parse(name: &str) -> Option<Attr> {
                match name { $($name => Some(Attr::$variant),)+ _ => None }
            }
        }
    };
}

attributes! {
    Userid "userid",
    Urgency "urgency",
    Priority "priority",
    TSubmit "t_submit",
    TDepend "t_depend",
    TPriority "t_priority",
    TSched "t_sched",
    TRun "t_run",
    TCleanup "t_cleanup",
    TInactive "t_inactive",
    State "state",
    Name "name",
    Cwd "cwd",
    Queue "queue",
    Project "project",
    Bank "bank",
    Ntasks "ntasks",
    Ncores "ncores",
    Duration "duration",
    Nnodes "nnodes",
    Ranks "ranks",
    Nodelist "nodelist",
    Success "success",
    ExceptionOccurred "exception_occurred",
    ExceptionType "exception_type",
    ExceptionSeverity "exception_severity",
    ExceptionNote "exception_note",
    Result "result",
    Expiration "expiration",
    Annotations "annotations",
    Waitstatus "waitstatus",
    Dependencies "dependencies",
}

/// A name that is no attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid attribute")]
pub struct UnknownAttr(pub String);

/// The attributes a request names; `all` stands for all.
pub fn parse(names: &[String]) -> Result<Vec<Attr>, UnknownAttr> {
    let mut attrs = Vec::with_capacity(names.len());
    for name in names {
        match Attr::parse(name) {
            Some(attr) => attrs.push(attr),
            None if name == "all" => attrs.extend_from_slice(Attr::ALL),
            None => return Err(UnknownAttr(name.clone())),
        }
    }
    Ok(attrs)
}

/// A job with the attributes asked for, as JSON. What is not known is left out.
pub struct View<'a> {
    pub job: &'a Job,
    pub attrs: &'a [Attr],
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("id", &self.job.id)?;
        for attr in self.attrs {
            put(&mut m, self.job, *attr)?;
        }
        m.end()
    }
}

fn put<M: SerializeMap>(m: &mut M, job: &Job, attr: Attr) -> Result<(), M::Error> {
    let name = attr.name();
    let times = &job.times;
    let inactive = job.state == JobState::Inactive;
    let ran = job.was(JobState::Run);
    macro_rules! some {
        ($value:expr) => {
            if let Some(value) = $value {
                m.serialize_entry(name, &value)?;
            }
        };
    }
    macro_rules! when {
        ($condition:expr, $value:expr) => {
            if $condition {
                m.serialize_entry(name, &$value)?;
            }
        };
    }
    let exception = job.exception.as_ref().filter(|_| inactive);
    match attr {
        Attr::Userid => m.serialize_entry(name, &job.userid)?,
        Attr::Urgency => m.serialize_entry(name, &job.urgency)?,
        Attr::Priority => when!(job.was(JobState::Sched), job.priority),
        Attr::TSubmit => m.serialize_entry(name, &times.submit)?,
        Attr::TDepend => when!(job.was(JobState::Depend), times.depend),
        Attr::TPriority => when!(times.priority != 0.0, times.priority),
        Attr::TSched => when!(times.sched != 0.0, times.sched),
        Attr::TRun => when!(ran, times.run),
        Attr::TCleanup => when!(job.was(JobState::Cleanup), times.cleanup),
        Attr::TInactive => when!(inactive, times.inactive),
        Attr::State => m.serialize_entry(name, &job.state.bit())?,
        Attr::Name => some!(job.name.as_deref()),
        Attr::Cwd => some!(job.cwd.as_deref()),
        Attr::Queue => some!(job.queue.as_deref()),
        Attr::Project => some!(job.project.as_deref()),
        Attr::Bank => some!(job.bank.as_deref()),
        Attr::Ntasks => some!(job.ntasks),
        Attr::Ncores => some!(job.ncores),
        Attr::Duration => some!(job.duration),
        Attr::Nnodes => some!(job.nnodes),
        Attr::Ranks => some!(
            job.ranks
                .as_ref()
                .filter(|_| ran)
                .map(|r| r.to_string_brackets())
        ),
        Attr::Nodelist => some!(job.nodelist.as_deref().filter(|_| ran)),
        Attr::Success => when!(inactive, job.success()),
        Attr::ExceptionOccurred => when!(inactive, job.exception.is_some()),
        Attr::ExceptionType => some!(exception.map(|e| e.kind.as_str())),
        Attr::ExceptionSeverity => some!(exception.map(|e| e.severity)),
        Attr::ExceptionNote => some!(exception.and_then(|e| e.note.as_deref())),
        Attr::Result => when!(inactive, job.result().bit()),
        Attr::Expiration => some!(job.expiration.filter(|_| ran)),
        Attr::Annotations => some!(job.annotations.as_ref()),
        Attr::Waitstatus => some!(job.wait_status),
        Attr::Dependencies => when!(!job.dependencies.is_empty(), job.dependencies),
    }
    Ok(())
}
