//! The sub-commands, one file each, and the table that names them.

mod admin;
mod alloc;
mod archive;
mod attr;
mod batch;
mod broker;
mod bulksubmit;
pub(crate) mod cancel;
mod cgroup;
pub(crate) mod config;
mod content;
mod cron;
mod dmesg;
pub(crate) mod driver;
mod dump;
mod env;
mod event;
pub(crate) mod exec;
mod filemap;
mod fortune;
mod fsck;
mod gc;
mod help;
mod hostlist;
mod housekeeping;
pub(crate) mod ion_r;
pub(crate) mod ion_resource;
mod job;
mod job_exec_override;
mod job_pipeline;
pub(crate) mod jobs;
mod jobtap;
mod kvs;
mod logger;
mod lptest;
mod modprobe;
mod module;
mod module_trace;
mod multi_prog;
mod overlay;
mod pgrep;
mod ping;
mod pmi;
mod post_job_event;
mod proxy;
mod pstree;
mod python;
mod queue;
mod relay;
pub(crate) mod resource;
mod restore;
mod rset;
mod run;
mod shutdown;
mod similar;
mod slurm_expiration_sync;
mod sproc;
mod start;
mod startlog;
mod submit;
mod terminus;
mod top;
mod update;
mod uptime;
mod uri;
mod version;
mod watch;

use crate::args::Args;
use crate::error::Outcome;

/// A built-in sub-command.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// One line for `flux --help`.
    pub(crate) help: &'static str,
    pub(crate) run: fn(Args) -> Outcome,
}

const fn command(name: &'static str, help: &'static str, run: fn(Args) -> Outcome) -> Command {
    Command { name, help, run }
}

/// All built-in sub-commands, by name.
#[rustfmt::skip]
pub(crate) const TABLE: &[Command] = &[
    command("R", "make, combine and read resource sets", rset::run),
    command("admin", "administer the instance", admin::run),
    command("alloc", "start an instance on newly allocated resources", alloc::run),
    command("archive", "store files in the key-value store, and unpack them anywhere", archive::run),
    command("batch", "submit a batch script", batch::run),
    command("broker", "run a message broker", broker::run),
    command("bulksubmit", "submit a job for each input", bulksubmit::run),
    command("cancel", "cancel jobs", cancel::run),
    command("cgroup", "print the control group of this process", cgroup::run),
    command("config", "look at and change the configuration", config::run),
    command("content", "load and store blobs", content::run),
    command("cron", "schedule commands", cron::run),
    command("dmesg", "print the broker's log", dmesg::run),
    command("dump", "write a snapshot of the key-value store to an archive", dump::run),
    command("env", "print the Flux environment, or run a command in it", env::run),
    command("event", "publish and watch events", event::run),
    command("exec", "run a command on brokers", exec::run),
    command("filemap", "the former name of archive", filemap::run),
    command("fortune", "print a saying", fortune::run),
    command("fsck", "check the store of the key-value store, and repair it", fsck::run),
    command("gc", "remove what the key-value store does not refer to any more", gc::run),
    command("getattr", "print a broker attribute", attr::get),
    command("hostlist", "combine and show lists of hosts", hostlist::run),
    command("housekeeping", "look at what runs on the nodes of jobs that are over", housekeeping::run),
    command("ion-R", "give an R a resource graph", ion_r::run),
    command("ion-resource", "ask the graph scheduler", ion_resource::run),
    command("job", "look at, wait for and act on jobs", job::run),
    command("job-exec-override", "begin and end jobs that only pretend to run", job_exec_override::run),
    command("job-frobnicator", "complete jobspecs on standard input, as job-ingest does", job_pipeline::frobnicator),
    command("job-validator", "check jobspecs on standard input, as job-ingest does", job_pipeline::validator),
    command("jobs", "list jobs", jobs::run),
    command("jobtap", "load, remove and look at plugins of the job manager", jobtap::run),
    command("kvs", "read and write the key-value store", kvs::run),
    command("logger", "add an entry to the broker's log", logger::run),
    command("lptest", "print lines of regular text", lptest::run),
    command("lsattr", "list broker attributes", attr::list),
    command("modprobe", "load and unload modules with what they require", modprobe::run),
    command("module", "manage broker modules", module::run),
    command("multi-prog", "run another program in each task of a job", multi_prog::run),
    command("overlay", "look at the brokers' tree", overlay::run),
    command("pgrep", "find jobs by name or id", pgrep::pgrep),
    command("ping", "measure round trips to a service", ping::run),
    command("pkill", "cancel jobs by name or id", pgrep::pkill),
    command("pmi", "try the process management interface", pmi::run),
    command("post-job-event", "add an event to a job's eventlog", post_job_event::run),
    command("proxy", "run a command in another instance", proxy::run),
    command("pstree", "show jobs as a tree", pstree::run),
    command("python", "run Python with the module path of this instance", python::run),
    command("queue", "look at and control queues", queue::run),
    command("relay", "pass messages between standard input and output and a broker", relay::run),
    command("resource", "look at resources, and take nodes out of service", resource::run),
    command("restore", "read a snapshot of the key-value store from an archive", restore::run),
    command("run", "run a job and show its output", run::run),
    command("setattr", "set a broker attribute", attr::set),
    command("shutdown", "end the instance", shutdown::run),
    command("slurm-expiration-sync", "end when the Slurm job ends that the instance is in", slurm_expiration_sync::run),
    command("sproc", "list, signal and wait for processes of brokers", sproc::run),
    command("start", "start a Flux instance", start::run),
    command("startlog", "list when the instance was started and ended", startlog::run),
    command("submit", "submit a job", submit::run),
    command("terminus", "run programs in terminals that can be left and entered again", terminus::run),
    command("top", "watch an instance and its jobs on a terminal", top::run),
    command("update", "change attributes of an active job", update::run),
    command("uptime", "show how long the instance has been running", uptime::run),
    command("uri", "find the URI of an instance", uri::run),
    command("version", "print the versions of the command and the broker", version::run),
    command("watch", "show the output of jobs, and wait for them", watch::run),
];
