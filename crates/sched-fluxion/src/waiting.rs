//! Jobs that wait, and what a round does with them. No I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use fluxion::Match;
use fluxion::plan::Time;
use fluxion::queue::{Change, Queue, Settings};
use fluxion::request::Request;
use formats::Jobspec;
use formats::idset::Idset;
use formats::jobid::JobId;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::machine::Machine;
use crate::round::{Add, Free, Open, Outcome, Outlook, Round, Running, Started, Turn};

/// Where a job stands in its queue.
type Place = (Reverse<u32>, u64, i64);

struct Waiting {
    queue: String,
    place: Place,
    request: Request,
    reserved: bool,
}

struct Opened {
    queue: Queue<Machine>,
    /// How many jobs a run looks at.
    depth: usize,
}

/// The queues of a queue manager.
#[derive(Default)]
pub struct Queues {
    queues: BTreeMap<String, Opened>,
    waiting: HashMap<i64, Waiting>,
    /// Jobs that got what they have in a round, or were opened with it.
    holding: HashSet<i64>,
}

fn key(id: JobId) -> i64 {
    // Ids have 63 bits (RFC 19).
    id.0 as i64
}

fn id(key: i64) -> JobId {
    JobId(key as u64)
}

fn rank(priority: i64) -> u32 {
    u32::try_from(priority.max(0)).unwrap_or(u32::MAX)
}

impl Queues {
    /// Says that resources changed.
    pub fn resources_changed(&mut self) {
        self.queues
            .values_mut()
            .for_each(|q| q.queue.resources_changed());
    }

    /// Gives up all reservations. What jobs have they keep.
    pub fn close(&mut self, machine: &mut Machine) {
        for (job, waiting) in self.waiting.drain() {
            if let Some(Opened { queue, .. }) = self.queues.get_mut(&waiting.queue) {
                queue.dequeue(machine, job);
            }
        }
        self.queues.clear();
    }

    /// Does a round.
    pub fn run(
        &mut self,
        machine: &mut Machine,
        round: Round,
        now: Time,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        if let Some(open) = round.open {
            self.open(machine, open, &mut outcome)?;
        }
        for free in round.free {
            self.free(machine, &free);
        }
        if !round.drop.is_empty() {
            // What was set aside for one queue's jobs is there for those of others.
            self.resources_changed();
        }
        for job in round.drop {
            if let Some(waiting) = self.waiting.remove(&key(job)) {
                if let Some(Opened { queue, .. }) = self.queues.get_mut(&waiting.queue) {
                    queue.dequeue(machine, key(job));
                }
                outcome.dropped.push(job);
            }
        }
        for add in round.add {
            let job = add.id;
            if let Err(why) = self.add(machine, add) {
                outcome.denied.push((job, why));
            }
        }
        for (job, priority) in round.prioritize {
            if let Some(waiting) = self.waiting.get_mut(&key(job)) {
                waiting.place.0 = Reverse(rank(priority));
                if let Some(Opened { queue, .. }) = self.queues.get_mut(&waiting.queue) {
                    queue.prioritize(key(job), rank(priority));
                }
            }
        }
        self.extend(machine, &round.extend);
        self.schedule(machine, now, &mut outcome);
        Ok(outcome)
    }

    fn open(
        &mut self,
        machine: &mut Machine,
        open: Open,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        self.close(machine);
        for job in self.holding.drain() {
            machine.cancel(job);
        }
        for (name, table) in open.queues {
            let settings =
                Settings::from_value(&table).map_err(|e| format!("queue {name}: {e}"))?;
            let depth = settings.depths.queue;
            self.queues.insert(
                name,
                Opened {
                    queue: Queue::new(settings),
                    depth,
                },
            );
        }
        for running in open.running {
            let job = key(running.id);
            // Something else may have matched under its number; the job manager knows better.
            machine.cancel(job);
            if let Err(why) = restore(machine, job, &running) {
                outcome.lost.push((running.id, why));
            } else {
                self.holding.insert(job);
            }
        }
        Ok(())
    }

    fn free(&mut self, machine: &mut Machine, free: &Free) {
        let job = key(free.id);
        // What has left the graph meanwhile, the job has not.
        let gone = free.last || machine.release(job, &free.r).unwrap_or(false);
        if gone {
            machine.cancel(job);
            self.holding.remove(&job);
        }
        self.resources_changed();
    }

    fn add(&mut self, machine: &mut Machine, add: Add) -> Result<(), String> {
        let queue = self.queues.get_mut(&add.queue);
        let queue = &mut queue
            .ok_or_else(|| format!("queue ({}) doesn't exist", add.queue))?
            .queue;
        let jobspec: Value = serde_json::from_str(add.jobspec.get()).map_err(|e| e.to_string())?;
        let jobspec = Jobspec::from_value(jobspec).map_err(|e| e.to_string())?;
        let request = machine.request(&jobspec).map_err(|e| e.to_string())?;
        let job = key(add.id);
        let order = (add.t_submit.max(0.0) * 1e6) as u64;
        let priority = rank(add.priority);
        queue.enqueue(job, priority, order, request.clone());
        let waiting = Waiting {
            queue: add.queue,
            place: (Reverse(priority), order, job),
            request,
            reserved: false,
        };
        self.waiting.insert(job, waiting);
        Ok(())
    }

    /// Reservations are made anew after it, around the new ends.
    fn extend(&mut self, machine: &mut Machine, jobs: &[(JobId, f64)]) {
        if jobs.is_empty() {
            return;
        }
        for (job, waiting) in self.waiting.iter().filter(|w| w.1.reserved) {
            if let Some(Opened { queue, .. }) = self.queues.get_mut(&waiting.queue) {
                queue.dequeue(machine, *job);
                queue.enqueue(
                    *job,
                    waiting.place.0.0,
                    waiting.place.1,
                    waiting.request.clone(),
                );
            }
        }
        for (job, end) in jobs {
            // A job that has nothing needs nothing.
            let _ = machine.reschedule(key(*job), *end);
        }
        self.resources_changed();
    }

    fn schedule(&mut self, machine: &mut Machine, now: Time, outcome: &mut Outcome) {
        let names: Vec<String> = self.queues.keys().cloned().collect();
        for name in names {
            while self.schedule_queue(&name, machine, now, outcome) {}
        }
    }

    /// Whether jobs have left the queue, so that those are to be looked at which were too far behind.
    fn schedule_queue(
        &mut self,
        name: &str,
        machine: &mut Machine,
        now: Time,
        outcome: &mut Outcome,
    ) -> bool {
        let Some(Opened { queue, depth }) = self.queues.get_mut(name) else {
            return false;
        };
        let before = queue.len();
        let changes = queue.run(machine, now);
        let first = queue
            .jobs()
            .next()
            .and_then(|(job, _)| self.waiting.get(&job));
        let first = first.map(|w| w.place);
        let again = queue.len() < before && before > *depth && !queue.is_empty();
        for change in changes {
            self.changed(machine, change, first, outcome);
        }
        again
    }

    fn changed(
        &mut self,
        machine: &mut Machine,
        change: Change<Match>,
        first: Option<Place>,
        outcome: &mut Outcome,
    ) {
        match change {
            Change::Start(job, found) => {
                let Some(waiting) = self.waiting.remove(&job) else {
                    return;
                };
                let passes = first.is_some_and(|first| first < waiting.place);
                let turn = match (waiting.reserved, passes) {
                    (true, _) => Turn::Reserved,
                    (_, true) => Turn::Backfill,
                    _ => Turn::Immediate,
                };
                match RawValue::from_string(machine.written(&found, &waiting.request)) {
                    Ok(r) => {
                        self.holding.insert(job);
                        outcome.started.push(Started {
                            id: id(job),
                            r,
                            turn,
                        });
                    }
                    // A match without node and core, which nothing can run on.
                    Err(_) => {
                        machine.cancel(job);
                        let why = "what the job asks for has no place to run on: no node with cores or gpus";
                        outcome.denied.push((id(job), why.into()));
                    }
                }
            }
            Change::Deny(job) => {
                self.waiting.remove(&job);
                let why = "unsatisfiable: there will never be enough resources for this job";
                outcome.denied.push((id(job), why.into()));
            }
            Change::Outlook(job, known) => {
                if let Some(waiting) = self.waiting.get_mut(&job) {
                    waiting.reserved = known.estimate.is_some();
                }
                let reason = known.reason.text().to_owned();
                outcome.outlook.push(Outlook {
                    id: id(job),
                    at: known.estimate,
                    reason,
                });
            }
        }
    }
}

fn restore(machine: &mut Machine, job: i64, running: &Running) -> Result<(), String> {
    machine
        .restore(job, &running.r)
        .map_err(|e| e.to_string())?;
    if let Some(freed) = &running.free {
        let ranks: Idset = match freed.as_str() {
            "all" => machine.ranks(),
            text => text.parse().map_err(|e| format!("freed ranks: {e}"))?,
        };
        machine
            .release_ranks(job, &ranks)
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use serde_json::json;

    fn machine() -> Machine {
        let r = json!({"version": 1, "execution": {
            "R_lite": [{"rank": "0-1", "children": {"core": "0-3"}}],
            "nodelist": ["n[0-1]"], "starttime": 0, "expiration": 0}});
        Machine::from_r(r, None, &Options::default()).unwrap()
    }

    fn opened(policy: &str, running: Vec<Running>) -> Round {
        let queues = BTreeMap::from([("default".to_owned(), json!({"queue-policy": policy}))]);
        Round {
            open: Some(Open { queues, running }),
            ..Round::default()
        }
    }

    fn job(number: u64, nodes: u32, cores: u32, duration: u32) -> Add {
        let spec = json!({"version": 1, "resources": [{"type": "node", "count": nodes, "with": [
                {"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": cores}]}]}],
            "tasks": [{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": duration}}});
        Add {
            id: JobId(number),
            queue: "default".into(),
            priority: 16,
            t_submit: number as f64,
            jobspec: RawValue::from_string(spec.to_string()).unwrap(),
        }
    }

    fn add(jobs: Vec<Add>) -> Round {
        Round {
            add: jobs,
            ..Round::default()
        }
    }

    fn started(outcome: &Outcome) -> Vec<(u64, Turn)> {
        outcome.started.iter().map(|s| (s.id.0, s.turn)).collect()
    }

    #[test]
    fn easy_backfills_around_a_reservation() {
        let (mut machine, mut queues) = (machine(), Queues::default());
        queues.run(&mut machine, opened("easy", vec![]), 0).unwrap();
        let jobs = vec![
            job(1, 1, 4, 100),
            job(2, 2, 4, 100),
            job(3, 1, 4, 200),
            job(4, 1, 4, 50),
        ];
        let outcome = queues.run(&mut machine, add(jobs), 0).unwrap();
        assert_eq!(
            started(&outcome),
            [(1, Turn::Immediate), (4, Turn::Backfill)]
        );
        let known: Vec<_> = outcome.outlook.iter().map(|o| (o.id.0, o.at)).collect();
        assert_eq!(known, [(2, Some(100)), (3, None)]);

        let free = |started: &Started| Free {
            id: started.id,
            r: serde_json::from_str(started.r.get()).unwrap(),
            last: true,
        };
        let free = outcome.started.iter().map(free).collect();
        let outcome = queues
            .run(
                &mut machine,
                Round {
                    free,
                    ..Round::default()
                },
                60,
            )
            .unwrap();
        assert_eq!(started(&outcome), [(2, Turn::Reserved)]);
    }

    #[test]
    fn jobs_behind_the_depth_come_up() {
        let (mut machine, mut queues) = (machine(), Queues::default());
        let mut open = opened("fcfs", vec![]);
        let table = json!({"queue-policy": "fcfs", "queue-params": {"queue-depth": 2}});
        open.open
            .as_mut()
            .unwrap()
            .queues
            .insert("default".into(), table);
        queues.run(&mut machine, open, 0).unwrap();
        let jobs = (1..=10).map(|n| job(n, 1, 1, 0)).collect();
        let outcome = queues.run(&mut machine, add(jobs), 0).unwrap();
        assert_eq!(started(&outcome).len(), 8);
    }

    #[test]
    fn never_is_told_at_once_and_down_nodes_are_waited_for() {
        let (mut machine, mut queues) = (machine(), Queues::default());
        machine.mark(&"1".parse().unwrap(), false);
        queues.run(&mut machine, opened("fcfs", vec![]), 0).unwrap();
        let outcome = queues
            .run(&mut machine, add(vec![job(1, 3, 1, 0), job(2, 2, 1, 0)]), 0)
            .unwrap();
        assert_eq!(
            outcome.denied.iter().map(|d| d.0.0).collect::<Vec<_>>(),
            [1]
        );
        assert!(outcome.started.is_empty());
        machine.mark(&"1".parse().unwrap(), true);
        queues.resources_changed();
        let outcome = queues.run(&mut machine, Round::default(), 0).unwrap();
        assert_eq!(started(&outcome), [(2, Turn::Immediate)]);
    }

    #[test]
    fn what_is_held_is_taken_up_again_in_part() {
        let (mut machine, mut queues) = (machine(), Queues::default());
        queues.run(&mut machine, opened("fcfs", vec![]), 0).unwrap();
        let outcome = queues
            .run(&mut machine, add(vec![job(1, 2, 4, 0)]), 0)
            .unwrap();
        let r: Value = serde_json::from_str(outcome.started[0].r.get()).unwrap();
        let running = Running {
            id: JobId(1),
            r: r.clone(),
            free: Some("0".into()),
        };
        // The same graph, then one that knows nothing.
        for mut machine in [machine, super::tests::machine()] {
            let mut queues = std::mem::take(&mut queues);
            let running = Running {
                id: running.id,
                r: r.clone(),
                free: running.free.clone(),
            };
            let outcome = queues
                .run(&mut machine, opened("fcfs", vec![running]), 0)
                .unwrap();
            assert!(outcome.lost.is_empty());
            let outcome = queues
                .run(&mut machine, add(vec![job(2, 1, 4, 0), job(3, 1, 1, 0)]), 0)
                .unwrap();
            assert_eq!(started(&outcome), [(2, Turn::Immediate)]);
            let rest = Free {
                id: JobId(1),
                r: r.clone(),
                last: false,
            };
            let outcome = queues
                .run(
                    &mut machine,
                    Round {
                        free: vec![rest],
                        ..Round::default()
                    },
                    0,
                )
                .unwrap();
            assert_eq!(started(&outcome), [(3, Turn::Immediate)]);
        }
    }

    #[test]
    fn what_cannot_be_taken_up_is_named() {
        let (mut machine, mut queues) = (machine(), Queues::default());
        let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "7", "children": {"core": "0"}}],
            "nodelist": ["n7"], "starttime": 0, "expiration": 0}});
        let running = Running {
            id: JobId(1),
            r,
            free: None,
        };
        let outcome = queues
            .run(&mut machine, opened("fcfs", vec![running]), 0)
            .unwrap();
        assert_eq!(outcome.lost.len(), 1);
    }

    #[test]
    fn an_extended_job_moves_reservations() {
        let (mut machine, mut queues) = (machine(), Queues::default());
        queues.run(&mut machine, opened("easy", vec![]), 0).unwrap();
        let outcome = queues
            .run(
                &mut machine,
                add(vec![job(1, 2, 4, 100), job(2, 2, 4, 100)]),
                0,
            )
            .unwrap();
        assert_eq!(outcome.outlook[0].at, Some(100));
        let extend = vec![(JobId(1), 300.0)];
        let outcome = queues
            .run(
                &mut machine,
                Round {
                    extend,
                    ..Round::default()
                },
                0,
            )
            .unwrap();
        assert_eq!(outcome.outlook[0].at, Some(300));
    }
}
