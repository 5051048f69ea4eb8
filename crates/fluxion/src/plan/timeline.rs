//! How much of something is used over time: a step function that many overlapping spans add up to.
//!
//! Change points are kept in order, in chunks. What a span adds to a chunk it covers completely is
//! noted once for the chunk, and so is the chunk's greatest value: adding a span and asking for a
//! maximum cost the square root of the number of points rather than their number, and nothing for
//! the few points most vertices have. A timeline knows no total, so pools may grow and shrink
//! under it.

/// Points in a chunk at most.
const CHUNK: usize = 128;

/// A moment, in seconds.
pub type Time = i64;

/// An amount that changes over time; 0 before the first point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    chunks: Vec<Chunk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    /// (time, value from then on, less `lift`).
    points: Vec<(Time, i64)>,
    /// What is added to every value here.
    lift: i64,
    /// The greatest value here, `lift` included.
    max: i64,
}

impl Chunk {
    fn refresh(&mut self) {
        let top = self.points.iter().map(|p| p.1).max().unwrap_or(0);
        self.max = top + self.lift;
    }
}

impl Timeline {
    /// Whether nothing is used at any time.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Where the value at `at` is noted: the last point that is not after it.
    fn find(&self, at: Time) -> Option<(usize, usize)> {
        let after = self.chunks.partition_point(|c| c.points[0].0 <= at);
        let chunk = after.checked_sub(1)?;
        let point = self.chunks[chunk].points.partition_point(|p| p.0 <= at) - 1;
        Some((chunk, point))
    }

    fn value(&self, (chunk, point): (usize, usize)) -> i64 {
        self.chunks[chunk].points[point].1 + self.chunks[chunk].lift
    }

    /// How much is used at a moment.
    pub fn at(&self, at: Time) -> i64 {
        self.find(at).map_or(0, |place| self.value(place))
    }

    /// Makes `at` a point, so that a change can begin there.
    fn cut(&mut self, at: Time) {
        let Some((c, p)) = self.find(at) else {
            match self.chunks.first_mut() {
                None => self.chunks.push(Chunk {
                    points: vec![(at, 0)],
                    lift: 0,
                    max: 0,
                }),
                Some(first) => {
                    first.points.insert(0, (at, -first.lift));
                    first.max = first.max.max(0);
                    self.split(0);
                }
            }
            return;
        };
        let chunk = &mut self.chunks[c];
        if chunk.points[p].0 != at {
            chunk.points.insert(p + 1, (at, chunk.points[p].1));
            self.split(c);
        }
    }

    fn split(&mut self, c: usize) {
        let chunk = &mut self.chunks[c];
        if chunk.points.len() > CHUNK {
            let mut rest = Chunk {
                points: chunk.points.split_off(CHUNK / 2),
                lift: chunk.lift,
                max: 0,
            };
            rest.refresh();
            chunk.refresh();
            self.chunks.insert(c + 1, rest);
        }
    }

    /// Removes the point at `at` if nothing changes there.
    fn heal(&mut self, at: Time) {
        let Some((c, p)) = self.find(at) else { return };
        if self.chunks[c].points[p].0 != at {
            return;
        }
        let before = match (p, c) {
            (0, 0) => 0,
            (0, _) => self.value((c - 1, self.chunks[c - 1].points.len() - 1)),
            _ => self.value((c, p - 1)),
        };
        if before != self.value((c, p)) {
            return;
        }
        let chunk = &mut self.chunks[c];
        chunk.points.remove(p);
        if chunk.points.is_empty() {
            self.chunks.remove(c);
        } else if p == 0 {
            chunk.refresh();
        }
    }

    /// Adds `amount` from `start` until `end`; a negative amount takes a span away again.
    pub fn add(&mut self, start: Time, end: Time, amount: i64) {
        if start >= end || amount == 0 {
            return;
        }
        self.cut(start);
        self.cut(end);
        let first = self.chunks.partition_point(|c| c.points[0].0 <= start) - 1;
        for chunk in &mut self.chunks[first..] {
            let (head, tail) = (chunk.points[0].0, chunk.points[chunk.points.len() - 1].0);
            if head >= end {
                break;
            }
            if start <= head && tail < end {
                chunk.lift += amount;
                chunk.max += amount;
                continue;
            }
            let from = chunk.points.partition_point(|p| p.0 < start);
            let to = chunk.points.partition_point(|p| p.0 < end);
            chunk.points[from..to]
                .iter_mut()
                .for_each(|p| p.1 += amount);
            chunk.refresh();
        }
        self.heal(start);
        self.heal(end);
    }

    /// The greatest value at any time from `start` until `end`.
    pub fn max(&self, start: Time, end: Time) -> i64 {
        if start >= end {
            return self.at(start);
        }
        let (c, p) = match self.find(start) {
            Some(place) => place,
            None if self.chunks.is_empty() || self.chunks[0].points[0].0 >= end => return 0,
            None => (0, 0),
        };
        let mut top = if self.chunks[c].points[p].0 > start {
            0
        } else {
            i64::MIN
        };
        for (i, chunk) in self.chunks.iter().enumerate().skip(c) {
            let from = if i == c { p } else { 0 };
            if chunk.points[from].0 >= end {
                break;
            }
            if from == 0 && chunk.points[chunk.points.len() - 1].0 < end {
                top = top.max(chunk.max);
                continue;
            }
            let within = chunk.points[from..].iter().take_while(|p| p.0 < end);
            top = top.max(within.map(|p| p.1 + chunk.lift).max().unwrap_or(i64::MIN));
        }
        top
    }

    /// The earliest moment, not before `from`, since which the value stays at most `limit` for so
    /// long.
    pub fn first_fit(&self, from: Time, duration: i64, limit: i64) -> Option<Time> {
        if limit < 0 {
            return None;
        }
        let mut start = if self.at(from) <= limit {
            Some(from)
        } else {
            None
        };
        let (mut c, mut p) = self.find(from).map_or((0, 0), |(c, p)| (c, p + 1));
        while c < self.chunks.len() {
            let chunk = &self.chunks[c];
            if p == 0 && chunk.max <= limit {
                start = start.or(Some(chunk.points[0].0));
            } else {
                for point in &chunk.points[p..] {
                    if start.is_some_and(|s| point.0.saturating_sub(s) >= duration) {
                        return start;
                    }
                    if point.1 + chunk.lift > limit {
                        start = None;
                    } else {
                        start = start.or(Some(point.0));
                    }
                }
            }
            c += 1;
            p = 0;
        }
        start
    }

    /// The change points after a moment, in order.
    pub fn changes_after(&self, at: Time) -> impl Iterator<Item = Time> + '_ {
        let (c, p) = self.find(at).map_or((0, 0), |(c, p)| (c, p + 1));
        let rest = self.chunks.iter().skip(c).enumerate();
        rest.flat_map(move |(i, chunk)| chunk.points[if i == 0 { p } else { 0 }..].iter())
            .map(|point| point.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: i64 = 600;

    fn naive_max(levels: &[i64], start: i64, end: i64) -> i64 {
        levels[start as usize..end as usize]
            .iter()
            .copied()
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn it_is_what_a_list_of_seconds_says(
            spans in proptest::collection::vec((0..END, 1..300i64, 1..9i64), 1..260),
            asks in proptest::collection::vec((0..END, 1..200i64, 0..40i64), 40),
        ) {
            let mut line = Timeline::default();
            let mut levels = vec![0i64; 2 * END as usize];
            let mut apply = |line: &mut Timeline, start: i64, len: i64, amount: i64| {
                line.add(start, start + len, amount);
                levels[start as usize..(start + len) as usize].iter_mut().for_each(|l| *l += amount);
                levels.clone()
            };
            let mut now = Vec::new();
            for &(start, len, amount) in &spans {
                now = apply(&mut line, start, len, amount);
            }
            for &(start, len, amount) in spans.iter().step_by(3) {
                now = apply(&mut line, start, len, -amount);
            }
            for (start, len, limit) in asks {
                prop_assert_eq!(line.at(start), now[start as usize]);
                prop_assert_eq!(line.max(start, start + len), naive_max(&now, start, start + len));
                let fit = (start..END + 300).find(|t| naive_max(&now, *t, *t + len) <= limit);
                prop_assert_eq!(line.first_fit(start, len, limit), fit);
            }
            for (i, &(start, len, amount)) in spans.iter().enumerate() {
                if i % 3 != 0 {
                    apply(&mut line, start, len, -amount);
                }
            }
            prop_assert!(line.is_empty());
            prop_assert_eq!(line, Timeline::default());
        }
    }

    #[test]
    fn spans_that_meet_leave_no_point_between_them() {
        let mut line = Timeline::default();
        line.add(0, 10, 2);
        line.add(10, 20, 2);
        assert_eq!(line.changes_after(0).collect::<Vec<_>>(), [20]);
    }
}
