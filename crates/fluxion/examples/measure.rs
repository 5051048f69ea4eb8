//! What operations on a machine of a given size take, as JSON.
//!
//! `measure CHASSIS POLICY [sockets] [--fill]`: chassis of 16 nodes of 96 cores and 4 gpus, with
//! `sockets` in 4 sockets a node; `--fill` also fills the machine with jobs of one core. `measure
//! recipe CHASSIS` prints the recipe of that machine.

use fluxion::plan::{JobId, Time};
use fluxion::queue::{Matcher, Policy, Queue, Refusal, Reserved, Settings};
use fluxion::request::{self, Request};
use fluxion::{Context, Match, Op, Options, read, write};
use serde_json::{Map, Value, json};
use std::time::Instant;

fn recipe(chassis: u32, sockets: bool) -> String {
    let (per, inside) = if sockets { (4, "socket") } else { (1, "node") };
    let mut text = String::from(
        "<?xml version='1.0'?><graphml xmlns='http://graphml.graphdrawing.org/xmlns'>",
    );
    for (id, of, kind, default) in [
        ("root", "node", "int", "0"),
        ("type", "node", "string", ""),
        ("basename", "node", "string", ""),
        ("unit", "node", "string", ""),
        ("size", "node", "long", "1"),
        ("subsystem", "node", "string", "containment"),
        ("e_subsystem", "edge", "string", "containment"),
        ("relation", "edge", "string", "contains"),
        ("rrelation", "edge", "string", "in"),
        ("id_scope", "edge", "int", "1"),
        ("id_start", "edge", "int", "0"),
        ("id_stride", "edge", "int", "1"),
        ("gen_method", "edge", "string", "MULTIPLY"),
        ("multi_scale", "edge", "int", "1"),
        ("as_tgt_subsystem", "edge", "string", "containment"),
        ("as_tgt_uplvl", "edge", "int", "1"),
        ("as_src_uplvl", "edge", "int", "1"),
    ] {
        text += &format!(
            "<key id='{id}' for='{of}' attr.name='{id}' attr.type='{kind}'><default>{default}</default></key>"
        );
    }
    text += "<graph id='machine' edgedefault='directed'>";
    let kinds = ["cluster", "chassis", "node", "socket", "core", "gpu"];
    for kind in kinds.into_iter().filter(|k| sockets || *k != "socket") {
        let root = u8::from(kind == "cluster");
        text += &format!(
            "<node id='{kind}'><data key='root'>{root}</data><data key='type'>{kind}</data><data key='basename'>{kind}</data></node>"
        );
    }
    let mut edge = |from: &str, to: &str, scale: u32| {
        text += &format!(
            "<edge id='{from}2{to}' source='{from}' target='{to}'><data key='multi_scale'>{scale}</data></edge>"
        );
    };
    edge("cluster", "chassis", chassis);
    edge("chassis", "node", 16);
    if sockets {
        edge("node", "socket", per);
    }
    edge(inside, "core", 96 / per);
    edge(inside, "gpu", 4 / per);
    text + "</graph></graphml>"
}

fn jobspec(resources: Value, duration: f64, constraint: Option<Value>) -> String {
    let mut system = Map::new();
    system.insert("duration".into(), json!(duration));
    if let Some(constraint) = constraint {
        system.insert("constraints".into(), constraint);
    }
    let tasks = json!([{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}]);
    json!({"version": 1, "resources": resources, "tasks": tasks, "attributes": {"system": system}})
        .to_string()
}

fn whole_nodes(count: u32) -> Value {
    json!([{"type": "node", "count": count, "exclusive": true, "with": [{"type": "slot", "count": 1, "label": "task",
        "with": [{"type": "core", "count": 1}]}]}])
}

fn slot_of_nodes(count: u32) -> Value {
    json!([{"type": "slot", "count": count, "label": "task", "with": [{"type": "node", "count": 1}]}])
}

fn cores(count: u32) -> Value {
    json!([{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": count}]}])
}

fn request(context: &Context, text: &str) -> Request {
    let jobspec = request::parse(text).expect("the jobspecs here are right");
    context
        .request(&jobspec)
        .expect("the jobspecs here are right")
}

/// Kilobytes this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .unwrap_or("");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

struct Report(Map<String, Value>);

impl Report {
    fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Microseconds of the median of `times`.
    fn median(&mut self, name: &str, mut times: Vec<f64>) {
        times.sort_by(f64::total_cmp);
        let micros = times[times.len() / 2] * 1e6;
        self.note(name, (micros * 10.).round() / 10.);
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let result = work();
    (result, begin.elapsed().as_secs_f64())
}

/// Matches and cancels again and again.
fn pair(report: &mut Report, context: &mut Context, name: &str, request: &Request, times: usize) {
    let (mut matches, mut writes, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let (found, took) = timed(|| context.submit(Op::Allocate, 1, request, 0));
        matches.push(took);
        let Ok(found) = found else {
            return report.note(name, "no match");
        };
        let (_, took) = timed(|| {
            write::Format::Rv1Nosched.write(context.graph(), &found.selection, Default::default())
        });
        writes.push(took);
        let (_, took) = timed(|| context.cancel(1));
        cancels.push(took);
    }
    report.median(&format!("{name}_match_us"), matches);
    report.median(&format!("{name}_write_us"), writes);
    report.median(&format!("{name}_cancel_us"), cancels);
}

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "recipe") {
        let chassis = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(720);
        return println!("{}", recipe(chassis, false));
    }
    // Filling a machine core by core says how that grows; it need not be done to the end.
    let fill = args
        .iter()
        .position(|a| a == "--fill")
        .map(|i| args.remove(i))
        .is_some();
    let chassis: u32 = args.first().and_then(|n| n.parse().ok()).unwrap_or(720);
    let policy = args.get(1).cloned().unwrap_or_else(|| "first".into());
    let sockets = args.get(2).is_some_and(|a| a == "sockets");
    let mut report = Report(Map::new());
    let before = resident();
    let text = recipe(chassis, sockets);
    let options = Options {
        policy: policy.clone(),
        ..Options::default()
    };
    let (context, took) = timed(|| Context::load(&text, read::Format::Grug, options));
    let mut context = context.expect("the recipe is right");
    report.note("policy", policy);
    report.note("vertices", context.graph().len());
    report.note("load_ms", took * 1e3);
    report.note(
        "memory_mb",
        (resident().saturating_sub(before)) as f64 / 1024.,
    );
    let nodes = chassis * 16;
    for count in [1, 64, 4096].into_iter().filter(|n| *n <= nodes) {
        let text = jobspec(whole_nodes(count), 3600., None);
        let ask = request(&context, &text);
        pair(
            &mut report,
            &mut context,
            &format!("nodes_{count}"),
            &ask,
            if count > 64 { 20 } else { 200 },
        );
        let ask = request(&context, &jobspec(slot_of_nodes(count), 3600., None));
        pair(
            &mut report,
            &mut context,
            &format!("slots_{count}"),
            &ask,
            if count > 64 { 20 } else { 200 },
        );
    }
    let one_core = request(&context, &jobspec(cores(1), 3600., None));
    pair(&mut report, &mut context, "core_1", &one_core, 100);
    let refused = json!({"properties": ["none"]});
    let ask = request(&context, &jobspec(whole_nodes(1), 3600., Some(refused)));
    let fail =
        |context: &mut Context| timed(|| context.submit(Op::Allocate, 1, &ask, 0).is_err()).1;
    report.median(
        "refused_property_us",
        (0..50).map(|_| fail(&mut context)).collect(),
    );
    let far = json!({"hostlist": [format!("node{}", nodes - 1)]});
    let ask = request(&context, &jobspec(whole_nodes(2), 3600., Some(far)));
    let fail =
        |context: &mut Context| timed(|| context.submit(Op::Allocate, 1, &ask, 0).is_err()).1;
    report.median(
        "refused_host_us",
        (0..50).map(|_| fail(&mut context)).collect(),
    );
    machine_behind_jobs(&mut report, &mut context, nodes);
    for queue in [
        ("easy", Policy::Easy, 10_000),
        ("conservative", Policy::Conservative, 500),
    ] {
        decide(&mut report, &mut context, queue, nodes);
    }
    if fill {
        fill_with_cores(&mut report, &mut context, &one_core, nodes);
    }
    println!("{}", Value::Object(report.0));
}

/// The whole machine, once 650 jobs that end at different times are through.
fn machine_behind_jobs(report: &mut Report, context: &mut Context, nodes: u32) {
    let jobs = 650.min(nodes);
    let each = nodes / jobs;
    for job in 0..jobs {
        let ask = request(
            context,
            &jobspec(whole_nodes(each), 1000. + f64::from(job) * 7., None),
        );
        let _ = context.submit(Op::Allocate, i64::from(job) + 10, &ask, 0);
    }
    let ask = request(context, &jobspec(whole_nodes(nodes), 3600., None));
    let times = (0..5).map(|_| {
        let (found, took) = timed(|| context.submit(Op::AllocateOrElseReserve, 1, &ask, 0));
        assert!(found.is_ok_and(|f| f.reserved), "it has to wait");
        let _ = context.cancel(1);
        took
    });
    report.median("machine_reserve_us", times.collect());
    for job in 0..jobs {
        let _ = context.cancel(i64::from(job) + 10);
    }
}

/// A context that notes how long each decision takes.
struct Timed<'a>(&'a mut Context, Vec<f64>);

impl Matcher for Timed<'_> {
    type Request = Request;
    type Grant = Match;

    fn start(&mut self, job: JobId, request: &Request, now: Time) -> Result<Match, Refusal> {
        let (result, took) = timed(|| self.0.start(job, request, now));
        self.1.push(took);
        result
    }

    fn reserve(
        &mut self,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Reserved<Match>, Refusal> {
        let (result, took) = timed(|| self.0.reserve(job, request, now));
        self.1.push(took);
        result
    }

    fn forget(&mut self, job: JobId) {
        self.0.forget(job);
    }
}

/// Decisions about ten thousand jobs of one to 256 nodes that wait.
fn decide(
    report: &mut Report,
    context: &mut Context,
    (name, policy, depth): (&str, Policy, usize),
    nodes: u32,
) {
    const JOBS: i64 = 10_000;
    let mut settings = Settings {
        policy,
        ..Settings::default()
    };
    settings.depths.queue = depth;
    let mut queue = Queue::new(settings);
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for job in 0..JOBS {
        let count = (1u32 << random(9)).min(nodes / 4).max(1);
        let duration = 600. + random(7200) as f64;
        let ask = request(context, &jobspec(whole_nodes(count), duration, None));
        queue.enqueue(job + 10, 16, job as u64, ask);
    }
    let mut matcher = Timed(context, Vec::new());
    let (changes, took) = timed(|| queue.run(&mut matcher, 0));
    let mut times = matcher.1;
    times.sort_by(f64::total_cmp);
    report.note(&format!("{name}_run_ms"), took * 1e3);
    report.note(&format!("{name}_decisions"), times.len());
    for (which, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.)] {
        let at = ((times.len() - 1) as f64 * part) as usize;
        report.note(&format!("{name}_{which}_us"), times[at] * 1e6);
    }
    drop(changes);
    let jobs: Vec<JobId> = context.jobs().keys().copied().collect();
    jobs.into_iter().for_each(|job| drop(context.cancel(job)));
}

/// One-core jobs until nothing is left.
fn fill_with_cores(report: &mut Report, context: &mut Context, ask: &Request, nodes: u32) {
    let all = i64::from(nodes) * 96;
    let (mut filled, mut last) = (0, 0.);
    let (_, took) = timed(|| {
        for job in 0..all {
            let (found, took) = timed(|| context.submit(Op::Allocate, job + 10, ask, 0));
            filled += u64::from(found.is_ok());
            last = took;
        }
    });
    report.note("fill_cores", filled);
    report.note("fill_core_mean_us", took * 1e6 / all as f64);
    report.note("fill_core_last_us", last * 1e6);
    report.note("fill_memory_mb", resident() as f64 / 1024.);
    let (_, took) = timed(|| (0..all).for_each(|job| drop(context.cancel(job + 10))));
    report.note("fill_cancel_mean_us", took * 1e6 / all as f64);
    assert_eq!(context.ledger().busy(), 0, "nothing is left behind");
}
