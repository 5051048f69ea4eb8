//! One plugin in the stack.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use plugin_sdk::Args;
use plugin_sdk::host::{Plugin, Program, Services};
use tokio::io::unix::AsyncFd;

/// What the manager does itself, under the names of upstream's plugins for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    PriorityDefault,
    LimitJobSize,
    LimitDuration,
    DependencyAfter,
    DependencySingleton,
    BeginTime,
    ValidateDuration,
    UpdateDuration,
    History,
    UpdateQueue,
    SubmitHold,
    Perilog,
    AllocBypass,
    PostEvent,
}

impl Builtin {
    pub(super) const ALL: [(Self, &str); 11] = [
        (Self::PriorityDefault, ".priority-default"),
        (Self::LimitJobSize, ".limit-job-size"),
        (Self::LimitDuration, ".limit-duration"),
        (Self::DependencyAfter, ".dependency-after"),
        (Self::DependencySingleton, ".dependency-singleton"),
        (Self::BeginTime, ".begin-time"),
        (Self::ValidateDuration, ".validate-duration"),
        (Self::UpdateDuration, ".update-duration"),
        (Self::History, ".history"),
        (Self::UpdateQueue, ".update-queue"),
        (Self::PostEvent, ".post-event"),
    ];

    /// Those that are there when they are loaded: upstream has files of these names. Prologs and epilogs are run whenever
    /// they are configured.
    pub(super) const ON_DEMAND: [(Self, &str); 3] = [
        (Self::SubmitHold, "submit-hold.so"),
        (Self::Perilog, "perilog.so"),
        (Self::AllocBypass, "alloc-bypass.so"),
    ];
}

/// In which order a plugin is told of the jobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    None,
    State,
    Reverse,
}

#[derive(Debug)]
pub(super) enum Body {
    Builtin(Builtin),
    Object(Arc<Plugin>),
    /// With what tells that it has something to say.
    Program(Box<Program>, Arc<AsyncFd<OwnedFd>>),
}

/// A plugin.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) serial: u64,
    /// The name of its file.
    pub(super) name: String,
    pub(super) path: String,
    pub(super) body: Body,
    pub(super) order: Order,
}

/// Run what blocks until a program has answered.
pub(super) fn blocking<R>(f: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(f),
        _ => f(),
    }
}

impl Tap {
    /// Whether it is the manager itself.
    pub(super) fn is_builtin(&self) -> bool {
        matches!(self.body, Body::Builtin(_))
    }

    /// The name in the topics of its services.
    pub(super) fn service(&self) -> String {
        let own = match &self.body {
            Body::Builtin(_) => self.name.clone(),
            Body::Object(plugin) => plugin.name(),
            Body::Program(program, _) => program.name(),
        };
        match own.is_empty() || own.contains(['/', '.']) {
            true => self.name.split('.').next().unwrap_or_default().to_owned(),
            false => own,
        }
    }

    /// Counts changes of what it handles.
    pub(super) fn changes(&self) -> u64 {
        match &self.body {
            Body::Builtin(_) => 0,
            Body::Object(plugin) => plugin.changes(),
            Body::Program(program, _) => program.changes(),
        }
    }

    pub(super) fn handles(&self, topic: &str) -> bool {
        match &self.body {
            Body::Builtin(_) => false,
            Body::Object(plugin) => plugin.handles(topic),
            Body::Program(program, _) => program.handles(topic),
        }
    }

    /// What its handler of a topic returned, if it has one.
    pub(super) fn call(
        &self,
        topic: &str,
        args: &mut Args,
        services: &mut dyn Services,
    ) -> Option<i32> {
        match &self.body {
            Body::Builtin(_) => None,
            Body::Object(plugin) => plugin.call(topic, args, services),
            Body::Program(program, _) => blocking(|| program.call(topic, args, services)),
        }
    }

    /// Hear what it says by itself.
    pub(super) fn listen(&self, services: &mut dyn Services) {
        if let Body::Program(program, _) = &self.body {
            blocking(|| program.listen(services));
        }
    }

    /// Why it cannot be called any more.
    pub(super) fn broken(&self) -> Option<String> {
        match &self.body {
            Body::Program(program, _) => program.broken(),
            _ => None,
        }
    }

    /// A job is gone, and what the plugin kept with it.
    pub(super) fn forget(&self, id: u64, services: &mut dyn Services) {
        if let Body::Object(plugin) = &self.body {
            plugin.forget(id, services);
        }
    }

    /// It is not called any more; calls that are under way go on.
    pub(super) fn retire(&self, services: &mut dyn Services) {
        if let Body::Object(plugin) = &self.body {
            plugin.retire(services);
        }
    }
}
