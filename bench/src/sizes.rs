//! How much is measured, and how long that may take.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long all sections may take together, in a full and in a quick run.
const ALL: [Duration; 2] = [Duration::from_secs(1170), Duration::from_secs(230)];

/// How much is measured.
#[derive(Debug)]
pub(crate) struct Sizes {
    /// How long a turn of calls lasts, how many calls it has at most, and how often all subjects take two turns.
    pub(crate) turn: Duration,
    pub(crate) calls: usize,
    pub(crate) turns: usize,
    /// The fixed rate, in calls a second. With 0, nothing is measured at a fixed rate.
    pub(crate) rate: f64,
    /// Members that end together, and leases that do.
    pub(crate) ends: usize,
    pub(crate) leases: usize,
    pub(crate) outage: Duration,
    pub(crate) outage_members: usize,
    /// How many members are at rest, one after the other, and how long each is watched.
    pub(crate) rest: Vec<(usize, Duration)>,
    pub(crate) window: Duration,
    /// Members that end while Daypass starts.
    pub(crate) ending: usize,
    /// Members with the longest texts and the most kubeconfigs.
    pub(crate) heavy: usize,
    /// Members with a gateway kubeconfig each.
    pub(crate) kubeconfigs: usize,
    /// Watches that are open through the gateway, fewer and many.
    pub(crate) watches: [usize; 2],
    /// Bytes that a command in a pod sends or receives.
    pub(crate) transfer: u64,
    /// Streams of each kind that are cut together.
    pub(crate) streams: usize,
    /// What a start leaves to do.
    pub(crate) settle: Duration,
    pub(crate) bindings: usize,
    pub(crate) namespaces: usize,
    pub(crate) cluster_bindings: usize,
    /// When the present section has to be done, and all of them.
    pub(crate) until: Instant,
    end: Instant,
    quick: bool,
    /// What the limits are multiplied by.
    longer: f64,
}

impl Sizes {
    pub(crate) fn new(quick: bool, scale: f64, begun: Instant) -> Self {
        let pick = |full: usize, small: usize| {
            let size = if quick { small } else { full };
            if size == 0 { 0 } else { ((size as f64 * scale) as usize).max(2) }
        };
        let seconds = |full: f64, small: f64| Duration::from_secs_f64(if quick { small } else { full } * scale);
        let window = seconds(30.0, 6.0);
        let longer = scale.max(1.0);
        let end = begun + ALL[usize::from(quick)].mul_f64(longer);
        Self {
            turn: seconds(1.0, 0.4).max(Duration::from_millis(200)),
            calls: 500,
            turns: if quick { 1 } else { 2 },
            rate: if quick { 0.0 } else { 20.0 },
            ends: pick(1000, 100),
            leases: pick(60, 0),
            outage: seconds(60.0, 10.0).max(Duration::from_secs(3)),
            outage_members: pick(200, 50),
            rest: if quick {
                vec![(0, window), (pick(0, 1000), seconds(0.0, 9.0))]
            } else {
                vec![(0, window), (pick(1000, 0), window), (pick(10_000, 0), seconds(90.0, 0.0))]
            },
            window,
            ending: if quick { 8 } else { 20 },
            heavy: pick(2500, 100),
            kubeconfigs: pick(10_000, 100),
            watches: [pick(100, 20), pick(1000, 100)],
            transfer: pick(200_000_000, 20_000_000) as u64,
            streams: pick(50, 5),
            settle: seconds(15.0, 3.0),
            bindings: pick(5000, 500),
            namespaces: pick(500, 50),
            cluster_bindings: pick(10_000, 1000),
            until: end,
            end,
            quick,
            longer,
        }
    }

    /// Begins a section that may take this long, in a full and in a quick run, in seconds.
    pub(crate) fn allow(&mut self, limits: [u64; 2]) {
        let limit = Duration::from_secs(limits[usize::from(self.quick)]).mul_f64(self.longer);
        self.until = (Instant::now() + limit).min(self.end);
    }

    /// The end of what takes this long from now, within the section.
    pub(crate) fn within(&self, time: Duration) -> Instant {
        (Instant::now() + time).min(self.until)
    }

    /// # Errors
    /// When the section's time is up.
    pub(crate) fn ensure_time(&self) -> Result<()> {
        ensure!(Instant::now() < self.until, "not finished: its time is up");
        Ok(())
    }
}
