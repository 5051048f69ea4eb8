//! The table of built-in modules: name, services, ranks, entry point.

use broker::host::{ModuleSpec, Ranks};

/// One line of the table.
macro_rules! module {
    ($name:literal, $ranks:expr, $main:path $(, $service:literal)* $(; $arg:literal)*) => {
        ModuleSpec {
            name: $name,
            services: &[$($service),*],
            ranks: $ranks,
            args: &[$($arg),*],
            main: |ctx| Box::pin($main(ctx)),
        }
    };
}

/// All modules, in the order they are loaded. They are unloaded in the opposite order, so each may
/// use those above it to the end.
pub(crate) fn table() -> Vec<ModuleSpec> {
    use Ranks::{All, Asked, Base, Root};
    let store = |default| Ranks::Chosen {
        by: "content.backing-module",
        default,
    };
    vec![
        module!("rexec", Base, subprocess::main),
        module!("heartbeat", All, clock::heartbeat::main),
        module!("content", All, content::cache::main; "await-backing"),
        module!(
            "content-sqlite",
            store(true),
            content::backing::module::sqlite
        ),
        module!(
            "content-files",
            store(false),
            content::backing::module::files
        ),
        module!("cron", Root, clock::cron::main; "sync=heartbeat.pulse"),
        module!("kvs", All, kvs::module::main),
        module!("kvs-watch", All, kvs::kvs_watch::main),
        module!("resource", All, resource::module::main),
        module!("job-manager", Root, jobs::manager::main),
        module!("job-ingest", All, jobs::ingest::main),
        module!("job-info", All, jobs::info::main),
        module!("job-list", Root, jobs::list::main),
        module!("job-exec", Root, jobs::exec::main),
        module!(
            "sched-simple",
            Root,
            sched::module::fifo,
            "sched",
            "feasibility"
        ),
        module!(
            "sched-fifo",
            Asked,
            sched::module::fifo,
            "sched",
            "feasibility"
        ),
        module!(
            "sched-backfill",
            Asked,
            sched::module::backfill,
            "sched",
            "feasibility"
        ),
        module!(
            "sched-fluxion-resource",
            Asked,
            sched_fluxion::resource::main
        ),
        module!(
            "sched-fluxion-feasibility",
            Asked,
            sched_fluxion::feasibility::main,
            "feasibility"
        ),
        module!(
            "sched-fluxion-qmanager",
            Asked,
            sched_fluxion::qmanager::main,
            "sched"
        ),
    ]
}
