use std::{cell::RefCell, collections::BTreeSet, fmt, fs, future::poll_fn, path::Path, pin::pin};

thread_local! {
    /// Who this thread plays, in a simulation.
    static PLAYED: RefCell<Option<ProcessName>> = const { RefCell::new(None) };
    /// The numbers of all whom it plays and who live.
    static LIVING: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// In a simulation, which has one thread: `life` is that of a process with this number, which is
/// greater than any that there is, and may go on beside others. When it is dropped, the process has
/// ended.
pub async fn play_process<T>(pid: u32, life: impl Future<Output = T>) -> T {
    let _living = Living::begin(pid);
    let process = ProcessName {
        pid,
        start_ticks: 1,
        ..ProcessName::current()
    };
    let mut life = pin!(life);
    poll_fn(|context| {
        let before = PLAYED.replace(Some(process.clone()));
        let polled = life.as_mut().poll(context);
        PLAYED.set(before);
        polled
    })
    .await
}

struct Living(u32);

impl Living {
    fn begin(pid: u32) -> Living {
        LIVING.with_borrow_mut(|living| living.insert(pid));
        Living(pid)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.with_borrow_mut(|living| living.remove(&self.0));
    }
}

/// Which process holds something, told so that another process can see whether it still lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessName {
    /// The name of its machine or container.
    pub host: String,
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did: another process with the same number
    /// has another. 0: not known.
    pub start_ticks: u64,
    /// In which space of process numbers; processes of others cannot be seen. Empty: not known.
    pub pid_space: String,
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.host.as_str() {
            "" => "a machine without a name",
            host => host,
        };
        write!(f, "process {} on {host}", self.pid)
    }
}

impl ProcessName {
    /// This process.
    pub fn current() -> ProcessName {
        if let Some(played) = PLAYED.with_borrow(Clone::clone) {
            return played;
        }
        let pid = std::process::id();
        ProcessName {
            host: read("/proc/sys/kernel/hostname"),
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            pid_space: pid_space(),
        }
    }

    /// Whether it is certain that the process has ended: it ran here, and is not there any more.
    pub fn is_surely_dead(&self) -> bool {
        let here = ProcessName::current();
        let is_known = self.start_ticks != 0 && !self.pid_space.is_empty();
        if !is_known || self.host != here.host || self.pid_space != here.pid_space {
            return false;
        }
        let is_played = LIVING.with_borrow(|living| living.contains(&self.pid));
        if *self == here || is_played {
            return false;
        }
        match start_ticks(self.pid) {
            Some(start_ticks) => start_ticks != self.start_ticks,
            None => !Path::new(&format!("/proc/{}", self.pid)).exists(),
        }
    }
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

fn pid_space() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let boot = read("/proc/sys/kernel/random/boot_id");
    match (link.to_str(), boot.as_str()) {
        (None | Some(""), _) | (_, "") => String::new(),
        (Some(link), boot) => format!("{link}@{boot}"),
    }
}

/// Field 22 of `/proc/PID/stat`. The second field, the name in parentheses, may hold anything.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    // A process that has ended and that nobody has asked about does nothing any more.
    if is_zombie {
        return Some(0);
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn played_processes_live_side_by_side() {
        let (one, other) = (1 << 30, (1 << 30) + 1);
        let named = play_process(one, async {
            let one = ProcessName::current();
            let other = play_process(other, async {
                tokio::task::yield_now().await;
                assert!(!one.is_surely_dead());
                ProcessName::current()
            });
            let other = other.await;
            assert!(other != one && other.is_surely_dead());
            assert_eq!(ProcessName::current(), one);
            one
        });
        let named = named.await;
        assert_eq!(named.pid, one);
        assert!(named.is_surely_dead());
        assert_eq!(ProcessName::current().pid, std::process::id());
    }

    #[test]
    fn the_living_and_the_dead() {
        let here = ProcessName::current();
        assert!(here.start_ticks > 0 && !here.pid_space.is_empty());
        assert!(!here.is_surely_dead());
        // The number was given to another process since.
        let before = ProcessName {
            start_ticks: here.start_ticks - 1,
            ..here
        };
        assert!(before.is_surely_dead());
        let elsewhere = ProcessName {
            host: "elsewhere".to_owned(),
            ..before.clone()
        };
        assert!(!elsewhere.is_surely_dead());
        let other_space = ProcessName {
            pid_space: "pid:[1]@boot".to_owned(),
            ..before
        };
        assert!(!other_space.is_surely_dead());
        assert!(!ProcessName::default().is_surely_dead());
    }
}
