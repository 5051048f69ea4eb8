//! Ending a job: which signal comes when (flux-config-exec(5)), without clocks or messages.
//!
//! Tasks are asked, and killed again and again; after five of these pauses the shells themselves are killed, in pauses
//! that double. What still runs then cannot be killed, and its nodes are drained.

use std::time::{Duration, Instant};

use super::config::Ending as Timing;

/// Pauses before shells are killed.
const PATIENCE: u32 = 5;

/// The longest pause between two attempts to kill a shell.
const LONGEST: Duration = Duration::from_secs(300);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this signal to all tasks.
    KillTasks(i32),
    /// Send it to the shells.
    KillShells(i32),
    /// What still runs stays; its nodes are not to be used.
    GiveUp,
}

/// A job that is made to end.
#[derive(Debug)]
pub(super) struct Ending {
    timing: Timing,
    /// When tasks are killed next, as long as shells are not.
    tasks: Option<Instant>,
    shells: Instant,
    pause: Duration,
    /// How often tasks, and then shells, were killed.
    task_kills: u32,
    kills: u32,
    give_up: Option<Instant>,
}

impl Ending {
    /// The tasks were asked to end at `now`.
    pub(super) fn begin(timing: Timing, now: Instant) -> Self {
        let pause = timing.kill_timeout;
        let after = |time: Duration| now.checked_add(time);
        Self {
            tasks: after(pause),
            shells: after(pause.saturating_mul(PATIENCE)).unwrap_or(now + LONGEST),
            pause,
            task_kills: 0,
            kills: 0,
            give_up: timing.max_kill_timeout.and_then(after),
            timing,
        }
    }

    /// How often tasks and shells were killed, and the pause before the next time shells are.
    pub(super) fn attempts(&self) -> (u32, u32, Duration) {
        (self.task_kills, self.kills, self.pause)
    }

    /// When something is due next.
    pub(super) fn due(&self) -> Instant {
        let others = self.tasks.into_iter().chain(self.give_up);
        others.fold(self.shells, Instant::min)
    }

    /// What is due at `now`, in order.
    pub(super) fn steps(&mut self, now: Instant) -> Vec<Step> {
        let signal = self.timing.kill_signal;
        let is_due = |at: Instant| at <= now;
        if self.give_up.is_some_and(is_due) {
            return vec![Step::GiveUp];
        }
        if is_due(self.shells) {
            self.tasks = None;
            self.kills += 1;
            self.shells = now + self.pause;
            self.pause = self.pause.saturating_mul(2).min(LONGEST);
            let was_last = self.give_up.is_none() && self.kills >= self.timing.max_kill_count;
            let last = was_last.then_some(Step::GiveUp);
            return [Step::KillShells(signal)].into_iter().chain(last).collect();
        }
        if self.tasks.is_some_and(is_due) {
            self.task_kills += 1;
            self.tasks = Some(now + self.timing.kill_timeout);
            return vec![Step::KillTasks(signal)];
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens after how many seconds.
    fn course(timing: Timing) -> Vec<(u64, Step)> {
        let start = Instant::now();
        let mut ending = Ending::begin(timing, start);
        let mut course = Vec::new();
        loop {
            let now = ending.due();
            let steps = ending.steps(now);
            course.extend(steps.iter().map(|s| ((now - start).as_secs(), *s)));
            if steps.contains(&Step::GiveUp) {
                return course;
            }
        }
    }

    #[test]
    fn attempts_are_counted() {
        let timing = Timing {
            kill_timeout: Duration::from_secs(1),
            max_kill_count: 4,
            ..Timing::default()
        };
        let tasks = (1..5).map(|s| (s, Step::KillTasks(9)));
        let shells = [5, 6, 8, 12].map(|s| (s, Step::KillShells(9)));
        let want: Vec<_> = tasks.chain(shells).chain([(12, Step::GiveUp)]).collect();
        assert_eq!(course(timing), want);
    }

    #[test]
    fn a_limit_in_time_goes_before_the_count() {
        let timing = Timing {
            kill_timeout: Duration::from_secs(2),
            max_kill_count: 1,
            max_kill_timeout: Some(Duration::from_secs(13)),
            kill_signal: 15,
            ..Timing::default()
        };
        let course = course(timing);
        assert_eq!(course.last(), Some(&(13, Step::GiveUp)));
        assert_eq!(
            course[course.len() - 3..][..2],
            [(10, Step::KillShells(15)), (12, Step::KillShells(15)),]
        );
    }
}
