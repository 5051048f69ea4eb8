//! What is going to happen, in order of time; of what happens at once, in the order it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events to come.
pub(crate) struct Agenda<E> {
    order: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    planned: u64,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self {
            order: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            planned: 0,
        }
    }

    /// Plan an event.
    pub(crate) fn at(&mut self, at: Duration, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.planned += 1;
        self.order.push(Reverse((at, self.planned, place)));
    }

    /// When the next event happens.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.order.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next event, and when it happens.
    pub(crate) fn next(&mut self) -> Option<(Duration, E)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_first_then_the_order_of_planning() {
        let mut agenda = Agenda::new();
        for (at, event) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            agenda.at(Duration::from_secs(at), event);
        }
        assert_eq!(agenda.next(), Some((Duration::from_secs(1), 'a')));
        agenda.at(Duration::from_secs(3), 'e');
        let rest: String = std::iter::from_fn(|| agenda.next())
            .map(|(_, e)| e)
            .collect();
        assert_eq!(rest, "bcde");
    }
}
