//! Traces of a shape that public ones have: more jobs by day than by night and at weekends,
//! log-normal run times, sizes that are mostly powers of two, and walltimes that are round numbers
//! well above what is needed.

use super::{Job, Shape};
use crate::plan::Time;
use std::f64::consts::{PI, TAU};

const HOUR: Time = 3600;
const DAY: Time = 24 * HOUR;

/// The walltimes people write.
const LIMITS: [Time; 11] = [
    HOUR / 12,
    HOUR / 6,
    HOUR / 4,
    HOUR / 2,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    8 * HOUR,
    12 * HOUR,
    18 * HOUR,
    DAY,
];

/// What most jobs are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Many small jobs.
    Capacity,
    /// Jobs of all sizes.
    Mixed,
    /// Large parts of the machine at a time.
    Capability,
}

impl Kind {
    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Some(match name {
            "capacity" => Kind::Capacity,
            "mixed" => Kind::Mixed,
            "capability" => Kind::Capability,
            _ => return None,
        })
    }

    /// Mean and spread of a size, as parts of the way from one processor to all of them, in powers
    /// of two.
    fn size(self) -> (f64, f64) {
        match self {
            Kind::Capacity => (0.2, 0.15),
            Kind::Mixed => (0.4, 0.2),
            Kind::Capability => (0.7, 0.15),
        }
    }
}

/// What a trace shall be like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// What most jobs are like.
    pub kind: Kind,
    /// How many there are.
    pub jobs: usize,
    /// Over how many days they come.
    pub days: u32,
    /// What share of the machine they would keep busy in that time.
    pub load: f64,
    /// How many processors there are.
    pub processors: u32,
    /// What all choices follow from.
    pub seed: u64,
}

/// SplitMix64: the same numbers on every machine, in every version.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (1. - self.unit(), self.unit());
        (-2. * a.ln()).sqrt() * (TAU * b).cos()
    }
}

/// How many jobs come at a moment, beside the busiest.
fn rate(at: Time) -> f64 {
    let hour = (at % DAY) as f64 / HOUR as f64;
    let by_day = 0.55 - 0.45 * ((hour - 2.) / 12. * PI).cos();
    let weekend = (at / DAY) % 7 >= 5;
    if weekend { by_day * 0.5 } else { by_day }
}

fn arrival(random: &mut Random, span: Time) -> Time {
    loop {
        let at = (random.unit() * span as f64) as Time;
        if random.unit() < rate(at) {
            return at;
        }
    }
}

fn size(random: &mut Random, wish: &Wish) -> u32 {
    let (mean, spread) = wish.kind.size();
    let way = (mean + spread * random.normal()).clamp(0., 1.);
    let power = way * f64::from(wish.processors).log2();
    let power = if random.unit() < 0.8 {
        power.round()
    } else {
        power
    };
    (power.exp2() as u32).clamp(1, wish.processors)
}

fn walltime(random: &mut Random, duration: Time) -> Time {
    let asked = duration as f64 * (1. + 4. * random.unit());
    let limit = LIMITS.into_iter().find(|l| *l as f64 >= asked);
    limit.unwrap_or(DAY)
}

/// The same run times in another measure, a second to a day each.
fn scaled(times: &[f64], factor: f64) -> impl Iterator<Item = f64> + '_ {
    times
        .iter()
        .map(move |t| (t * factor).clamp(1., DAY as f64))
}

/// The factor by which run times make the wanted load, as far as their bounds let them.
fn factor(sizes: &[u32], times: &[f64], wanted: f64) -> f64 {
    let work = |factor| -> f64 {
        let sizes = sizes.iter().map(|s| f64::from(*s));
        scaled(times, factor).zip(sizes).map(|(t, s)| t * s).sum()
    };
    let (mut low, mut high) = (0., DAY as f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.;
        if work(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Makes the jobs of a trace, in order of submission.
pub fn generate(wish: &Wish) -> Vec<Job> {
    let mut random = Random(wish.seed);
    let span = Time::from(wish.days.max(1)) * DAY;
    let mut submits: Vec<Time> = (0..wish.jobs).map(|_| arrival(&mut random, span)).collect();
    submits.sort_unstable();
    let sizes: Vec<u32> = submits.iter().map(|_| size(&mut random, wish)).collect();
    let times: Vec<f64> = submits
        .iter()
        .map(|_| (1.5 * random.normal()).exp())
        .collect();
    let wanted = wish.load * f64::from(wish.processors) * span as f64;
    let factor = factor(&sizes, &times, wanted);
    let durations = scaled(&times, factor).map(|t| t as Time);
    let parts = submits.into_iter().zip(sizes).zip(durations);
    let job = |(i, ((submit, size), duration)): (usize, ((Time, u32), Time))| Job {
        id: i as u64 + 1,
        line: 0,
        submit,
        duration,
        walltime: walltime(&mut random, duration),
        shape: Shape::Processors(size),
    };
    parts.enumerate().map(job).collect()
}
