//! The run: messages on their way, modules that end and start, and time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::module::{Context, Meter, ModuleResult};
use client::{Handle, Node};
use formats::jobid::JobId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wire::{Kind, Message, RpcError, Text};

use super::clients::{Program, Shared};
use super::shells::{Shells, resources};
use super::{Fault, Outcome, Part, Plan, Sabotage, checks, commands, fate, look};
use crate::agenda::Agenda;
use crate::exchange::{Exchange, Step};
use crate::kvs::store::Store;

/// Services of rank 0 that are not modules here.
const OUTSIDE: &[&str] = &["content-backing", "config", "resource", "rexec", "log"];

/// From one moment at which something happens to the next: what timers can tell apart.
const TICK: Duration = Duration::from_millis(1);

/// From one look at the jobs to the next.
const LOOK: Duration = Duration::from_millis(500);

/// Jobs end within this time when nothing goes wrong any more; a lost node is waited for for five minutes.
const PATIENCE: Duration = Duration::from_secs(1000);

enum Event {
    Deliver(Text, Message),
    /// For a service outside, from this life of the broker.
    Outside(u64, Message),
    ShellEnds(i32, i32),
    Broker,
    Start(Part),
    Look,
}

/// How a module has ended.
type Ends = Arc<Mutex<Vec<(Text, &'static str, ModuleResult)>>>;

/// A module that is there.
struct Module {
    port: Text,
    task: AbortHandle,
    /// It was asked to end.
    ending: bool,
}

/// How far the run is.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Programs and faults.
    Busy,
    /// All has come to its end; a last restart must not change anything.
    Ended(Vec<checks::Record>),
    Over,
}

struct World {
    plan: Plan,
    rng: StdRng,
    origin: Instant,
    now: Duration,
    agenda: Agenda<Event>,
    exchange: Exchange,
    store: Store,
    shells: Shells,
    modules: BTreeMap<Part, Module>,
    /// Tasks of this life of the broker besides.
    tasks: Vec<AbortHandle>,
    alive: bool,
    life: u64,
    /// When the last message to each port arrives: none overtakes another.
    ways: HashMap<Text, Duration>,
    /// Requests that modules have not answered: by port, sender and tag.
    open: BTreeMap<Text, BTreeMap<(Text, u32), Message>>,
    /// What services are told when a port is gone.
    notices: BTreeMap<Text, BTreeMap<String, Message>>,
    ends: Ends,
    shared: Shared,
    seen: look::Seen,
    /// Jobs that the manager was told of.
    announced: BTreeSet<JobId>,
    faults: VecDeque<(u64, Fault)>,
    last_fault: Duration,
    phase: Phase,
    /// Sabotage is done once.
    sabotaged: bool,
    history: VecDeque<String>,
    outcome: Outcome,
}

/// Runs a plan in this thread.
pub(super) fn run(plan: &Plan) -> Outcome {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        fate::follow_clock();
        let mut world = World::new(plan);
        if let Err(text) = world.play().await {
            let text = format!("{text} ({plan:?})");
            world.outcome.violation = Some((text, world.history.into()));
        }
        world.outcome
    })
}

impl World {
    fn new(plan: &Plan) -> World {
        let shared = Shared::default();
        shared.get().left = vec![plan.jobs; plan.programs as usize];
        let mut agenda = Agenda::new();
        agenda.at(Duration::ZERO, Event::Broker);
        agenda.at(LOOK, Event::Look);
        World {
            rng: StdRng::seed_from_u64(plan.seed),
            origin: Instant::now(),
            now: Duration::ZERO,
            agenda,
            exchange: Exchange::new(1, 1, OUTSIDE),
            store: Store::default(),
            shells: Shells::default(),
            modules: BTreeMap::new(),
            tasks: Vec::new(),
            alive: false,
            life: 0,
            ways: HashMap::new(),
            open: BTreeMap::new(),
            notices: BTreeMap::new(),
            ends: Ends::default(),
            shared,
            seen: look::Seen::default(),
            announced: BTreeSet::new(),
            faults: plan.faults.iter().copied().collect(),
            last_fault: Duration::ZERO,
            phase: Phase::Busy,
            sabotaged: false,
            history: VecDeque::new(),
            outcome: Outcome::default(),
            plan: plan.clone(),
        }
    }

    async fn play(&mut self) -> Result<(), String> {
        let mut last = Duration::ZERO;
        while self.phase != Phase::Over {
            // All others wait when time goes on.
            self.take_up()?;
            let due = self.agenda.due().unwrap_or_default().max(last + TICK);
            tokio::select! {
                biased;
                () = self.exchange.stirs() => {
                    self.now = Instant::now() - self.origin;
                    continue;
                }
                // All others wait when time goes on.
                () = tokio::time::sleep_until(self.origin + due) => {}
            }
            self.now = Instant::now() - self.origin;
            last = self.now;
            if let Some((_, event)) = self.agenda.next() {
                self.happen(event)?;
            }
            self.strike();
            if let Some(text) = self.shared.get().violation.take() {
                return Err(text);
            }
            if self.now > self.last_fault + PATIENCE {
                let waiting = look::waiting(&self.seen.get());
                return Err(format!("there is no end to it: {waiting}"));
            }
        }
        Ok(())
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.history.len() >= self.plan.history {
            self.history.pop_front();
        }
        let now = self.now;
        self.history.push_back(format!("{now:?} {}", line()));
    }

    fn later(&mut self, most: u64) -> Duration {
        self.now + Duration::from_millis(self.rng.random_range(0..=most))
    }

    /// Faults that are due.
    fn strike(&mut self) {
        while let Some((at, fault)) = self.faults.front().copied() {
            if at > self.outcome.messages || !self.alive || self.phase != Phase::Busy {
                return;
            }
            self.faults.pop_front();
            self.outcome.faults += 1;
            self.last_fault = self.now;
            self.note(|| format!("fault: {fault:?}"));
            match fault {
                Fault::Broker => self.crash(),
                Fault::Module(part) => self.end_module(part),
                Fault::Unload(part) => self.unload(part),
                Fault::Node(rank) => {
                    let answers = self.shells.lose(rank);
                    self.respond(answers);
                }
            }
        }
    }

    // ---- lives ----

    fn broker(&mut self) {
        self.alive = true;
        self.life += 1;
        self.note(|| "the broker starts".to_owned());
        self.exchange.set_attr("statedir-cleanup", "0");
        self.exchange.set_attr("conf.shell_path", "/flux-shell");
        self.exchange
            .set_attr("security.owner", &super::clients::OWNER.to_string());
        self.module("content", &["await-backing"], content::cache::main);
        let (_, handle) = self.exchange.attach(0, None);
        self.spawn(async move {
            let offer = json!({ "name": "sim", "durable": true, "batches": true });
            let registered = handle.rpc("content.register-backing", Node::Any, &offer);
            registered.await.expect("there is one store");
        });
        self.module("kvs", &[], kvs::module::main);
        self.module("kvs-watch", &[], kvs::kvs_watch::main);
        Part::ALL.into_iter().for_each(|part| self.start(part));
        for number in 0..self.plan.programs as usize {
            let program = Program {
                number,
                handle: self.exchange.attach(0, None).1,
                shared: self.shared.clone(),
                ranks: self.plan.ranks,
                rng: StdRng::seed_from_u64(self.rng.random()),
            };
            self.spawn(program.run());
        }
    }

    fn start(&mut self, part: Part) {
        if !self.alive || self.modules.contains_key(&part) {
            return;
        }
        self.note(|| format!("{part:?} starts"));
        let (port, task) = match part {
            Part::Manager => self.module("job-manager", &[], jobs::manager::main),
            Part::Ingest => self.module("job-ingest", &[], jobs::ingest::main),
            Part::Exec => self.module("job-exec", &[], jobs::exec::main),
            Part::Scheduler => {
                let (port, task) = self.module("sched", &[], sched::module::fifo);
                self.exchange.also("feasibility", &port);
                (port, task)
            }
        };
        let module = Module {
            port,
            task,
            ending: false,
        };
        self.modules.insert(part, module);
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = tokio::spawn(task).abort_handle();
        self.tasks.push(task.clone());
        task
    }

    fn module<F>(
        &mut self,
        name: &'static str,
        args: &[&str],
        main: impl FnOnce(Context) -> F,
    ) -> (Text, AbortHandle)
    where
        F: Future<Output = ModuleResult> + Send + 'static,
    {
        let (port, handle) = self.exchange.attach(0, Some(name));
        handle.set_meter(Arc::new(Meter::new(name)));
        let inbox = handle.inbox().expect("a fresh handle has its inbox");
        let context = Context {
            handle,
            inbox,
            name: name.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        let (main, ends, id) = (main(context), self.ends.clone(), port.clone());
        let task = self.spawn(async move {
            let end = main.await;
            let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push((id, name, end));
        });
        (port, task)
    }

    /// The broker ends, and all that is attached to it.
    fn crash(&mut self) {
        self.alive = false;
        self.tasks.drain(..).for_each(|task| task.abort());
        self.exchange.detach(0);
        self.shells.deserted();
        self.modules.clear();
        self.open.clear();
        self.notices.clear();
        self.seen.get().under_way = false;
        let back = self.later(300);
        self.agenda.at(back, Event::Broker);
    }

    /// A module ends at once.
    fn end_module(&mut self, part: Part) {
        let Some(module) = self.modules.remove(&part) else {
            return;
        };
        module.task.abort();
        self.leave(&module.port);
        let back = self.later(300);
        self.agenda.at(back, Event::Start(part));
    }

    fn unload(&mut self, part: Part) {
        if let Some(module) = self.modules.get_mut(&part) {
            module.ending = true;
            self.exchange.close_inbox(&module.port);
        }
    }

    /// A port is gone: what it left unanswered is answered, and those it asked are told.
    fn leave(&mut self, port: &Text) {
        self.exchange.drop_port(port);
        let open = self.open.remove(port).unwrap_or_default();
        for msg in open.values() {
            self.refuse(msg);
        }
        for (_, notice) in self.notices.remove(port).unwrap_or_default() {
            let step = self
                .exchange
                .request(0, notice, crate::exchange::Goal::First);
            self.go(step);
        }
    }

    fn refuse(&mut self, msg: &Message) {
        let step = self
            .exchange
            .respond(0, msg, Err(RpcError::errno(libc::ENOSYS)));
        self.go(step);
    }

    /// What has been sent, and who has ended.
    fn take_up(&mut self) -> Result<(), String> {
        while let Some((_, from, msg)) = self.exchange.sent() {
            self.sent(from, msg);
        }
        let ends = std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        for (port, name, result) in ends {
            let end = format!("module {name} has ended: {result:?}");
            self.note(|| end.clone());
            let of = |(_, module): &(&Part, &Module)| module.port == port;
            let Some((part, module)) = self.modules.iter().find(of) else {
                match self.exchange.is_attached(&port) {
                    true => return Err(end),
                    false => continue,
                }
            };
            // Ingest that comes while the manager is away has to be started again.
            let is_early = *part == Part::Ingest && result.is_err_and(|e| e.errno == libc::ENOSYS);
            if !module.ending && !is_early {
                return Err(end);
            }
            let part = *part;
            self.modules.remove(&part);
            self.leave(&port);
            let back = self.later(100);
            self.agenda.at(back, Event::Start(part));
        }
        Ok(())
    }

    // ---- messages ----

    fn sent(&mut self, from: Text, msg: Message) {
        match msg.kind() {
            Kind::Request { .. } => {
                let mut notice = msg.disconnect_notice();
                notice.set_credentials(wire::Credentials::owner(super::clients::OWNER));
                notice.push_route(from.clone());
                let notices = self.notices.entry(from.clone()).or_default();
                notices.entry(notice.topic().to_owned()).or_insert(notice);
            }
            Kind::Response { .. } => {
                if msg.is_final()
                    && let (Some(open), Some(to)) = (self.open.get_mut(&from), msg.sender())
                {
                    open.remove(&(to.clone(), msg.matchtag()));
                }
                self.share_cores(&from, &msg);
            }
            _ => {}
        }
        let step = self.exchange.submit(0, from, msg);
        self.go(step);
    }

    fn go(&mut self, step: Step) {
        match step {
            Step::Nowhere | Step::Hop(..) => {}
            Step::Port(id, msg) => {
                let at = self.later(3);
                let last = self.ways.entry(id.clone()).or_default();
                *last = at.max(*last);
                let at = *last;
                self.agenda.at(at, Event::Deliver(id, msg));
            }
            Step::Outside(msg) => {
                let at = self.later(3);
                let last = self.ways.entry(msg.service().into()).or_default();
                *last = at.max(*last);
                let at = *last;
                self.agenda.at(at, Event::Outside(self.life, msg));
            }
            Step::Event(event) => {
                for id in self.exchange.subscribers(0, event.topic()) {
                    self.go(Step::Port(id, event.clone()));
                }
                let label = event.topic().strip_suffix(".kill");
                if let (Some(label), Ok(told)) = (label, event.json::<Value>()) {
                    let signum = told["signum"].as_i64().unwrap_or(0) as i32;
                    for pid in self.shells.labelled(label) {
                        let at = self.later(20);
                        self.agenda.at(at, Event::ShellEnds(pid, signum));
                    }
                }
            }
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        self.shells.now = (fate::EPOCH + self.now).as_secs_f64();
        match event {
            Event::Deliver(id, msg) => self.deliver(&id, msg),
            Event::Outside(life, msg) => self.outside(life, &msg),
            Event::ShellEnds(pid, status) => {
                self.note(|| format!("shell {pid} ends: {status}"));
                let answers = self.shells.end(pid, status);
                self.respond(answers);
            }
            Event::Broker => self.broker(),
            Event::Start(part) => self.start(part),
            Event::Look => return self.look(),
        }
        Ok(())
    }

    fn deliver(&mut self, id: &Text, msg: Message) {
        self.outcome.messages += 1;
        self.note(|| {
            let text = msg.text().unwrap_or_default();
            let text: String = text.chars().take(200).collect();
            format!("{id} gets {:?} {} {text}", msg.kind(), msg.topic())
        });
        if msg.is_request() {
            if !self.exchange.is_attached(id) {
                return self.refuse(&msg);
            }
            self.announced.extend(look::ids(&msg));
            if let Some(sender) = msg.sender() {
                let open = self.open.entry(id.clone()).or_default();
                match msg.no_response() {
                    false => drop(open.insert((sender.clone(), msg.matchtag()), msg.clone())),
                    true if msg.method() == "disconnect" => open.retain(|(s, _), _| s != sender),
                    true => {}
                }
            }
        }
        self.exchange.deliver(id, msg);
    }

    fn respond(&mut self, answers: Vec<Message>) {
        for mut answer in answers {
            if let Some(id) = answer.pop_route() {
                self.go(Step::Port(id, answer));
            }
        }
    }

    fn outside(&mut self, life: u64, msg: &Message) {
        let is_ours = self.alive && life == self.life;
        let stored = msg.service() == "content-backing";
        // What the disk had been given before a crash may be on it afterwards, but is not answered.
        if !is_ours && (self.alive || !stored || self.rng.random_bool(0.5)) {
            return;
        }
        self.note(|| format!("{} outside", msg.topic()));
        let answers = match msg.service() {
            "content-backing" => vec![self.stored(msg)],
            "rexec" => self.rexec(msg),
            "resource" if msg.method() == "acquire" => {
                let r = resources(self.plan.ranks, 2);
                let first = json!({ "resources": r, "up": "all" });
                vec![msg.response(0, wire::json_payload(&first).ok())]
            }
            "config" if msg.method() == "get" => {
                let config = match self.plan.commands {
                    true => commands::config(),
                    false => json!({}),
                };
                vec![msg.response(0, wire::json_payload(&config).ok())]
            }
            _ => vec![msg.response(0, None)],
        };
        if is_ours && !msg.no_response() {
            self.respond(answers);
        }
    }

    fn stored(&mut self, msg: &Message) -> Message {
        let due = self.plan.sabotage == Some(Sabotage::Forgets) && self.outcome.messages > 150;
        let forgets = due && msg.method() == "store-batch" && !self.sabotaged;
        self.sabotaged |= forgets;
        let sabotage = forgets.then_some(crate::kvs::Sabotage::Forgets);
        match self.store.handle(msg, sabotage) {
            Ok(payload) => msg.response(0, payload),
            Err(e) => msg.error_response(&e),
        }
    }

    fn rexec(&mut self, msg: &Message) -> Vec<Message> {
        let rank = match msg.kind() {
            Kind::Request { nodeid, .. } if nodeid < self.plan.ranks => nodeid,
            _ => 0,
        };
        let said = self.shells.request(rank, msg);
        for pid in said.killed {
            let at = self.later(20);
            self.agenda.at(at, Event::ShellEnds(pid, libc::SIGKILL));
        }
        if let Some(pid) = said.started {
            self.outcome.shells += 1;
            let at = self.later(400);
            let status = if self.rng.random_bool(0.2) { 256 } else { 0 };
            self.agenda.at(at, Event::ShellEnds(pid, status));
        }
        if self.plan.sabotage == Some(Sabotage::StartsTwice) && msg.method() == "attach" {
            self.shells.start_again(rank, msg);
        }
        said.answers
    }

    /// What the scheduler has just given away, it is told to be free.
    fn share_cores(&mut self, from: &Text, msg: &Message) {
        let Some(module) = self.modules.get(&Part::Scheduler) else {
            return;
        };
        let is_due = self.plan.sabotage == Some(Sabotage::SharesCores) && module.port == *from;
        let Ok(answer) = msg.json::<Value>() else {
            return;
        };
        let (Some(id), Some(r)) = (answer.get("id"), answer.get("R")) else {
            return;
        };
        if !is_due || msg.topic() != "sched.alloc" {
            return;
        }
        let lie = wire::json_payload(&json!({ "id": id, "R": r })).ok();
        let mut lie = Message::request("sched.free", 0, 0, wire::Flags::NORESPONSE, lie);
        lie.set_credentials(wire::Credentials::owner(super::clients::OWNER));
        self.go(Step::Port(from.clone(), lie));
    }

    // ---- what must hold ----

    /// Judges what was last seen, and looks again.
    fn look(&mut self) -> Result<(), String> {
        self.agenda.at(self.now + LOOK, Event::Look);
        let seen = self.seen.get().records.take();
        if let Some(records) = seen {
            self.judge(records)?;
        }
        if !self.alive || self.seen.get().under_way || self.phase == Phase::Over {
            return Ok(());
        }
        let (_, handle): (Text, Handle) = self.exchange.attach(0, None);
        let release = self.shared.get().left.iter().all(|left| *left == 0);
        let ids = self.announced.clone();
        self.seen.get().under_way = true;
        let looked = look::look(handle, ids, self.seen.clone(), release);
        self.spawn(looked);
        Ok(())
    }

    fn judge(&mut self, records: Vec<checks::Record>) -> Result<(), String> {
        for record in &records {
            checks::is_legal(record)?;
        }
        checks::cores_are_not_shared(&records)?;
        checks::shells_start_once(&self.shells.starts)?;
        let done = self.shared.get();
        let is_calm = done.left.iter().all(|left| *left == 0)
            && self.seen.get().looked_at == self.announced.len()
            && records.iter().all(checks::Record::is_inactive)
            && self.modules.len() == Part::ALL.len();
        let acknowledged = done.acknowledged.clone();
        drop(done);
        if !is_calm {
            return Ok(());
        }
        if self.plan.commands && self.seen.get().allocated.is_some() {
            // Housekeeping goes on.
            return Ok(());
        }
        checks::none_is_lost(&acknowledged, &records)?;
        if self.plan.commands {
            commands::are_in_place(&records, &self.shells.spans)?;
        }
        if let Some(held) = self.seen.get().allocated.take() {
            return Err(format!("resources were not given back: {held}"));
        }
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Busy => {
                self.phase = Phase::Ended(records);
                self.note(|| "a last restart".to_owned());
                self.last_fault = self.now;
                self.crash();
                Ok(())
            }
            Phase::Ended(before) => {
                self.outcome.jobs = acknowledged.len() as u64;
                self.outcome.events = records.iter().map(|r| r.events.len() as u64).sum();
                checks::nothing_changes(&before, &records)
            }
            Phase::Over => Ok(()),
        }
    }
}
