//! # What it does
//! Connections between the parts of a cluster: TCP, or in simulation a network in memory that is as
//! slow and as unreliable as it is told to be.
//!
//! # Ordering and invariants
//! A simulated connection keeps the order of its bytes and loses none but by being cut. Who
//! listens, how long a piece of data travels and which connection is cut follow from the seed alone.
//!
//! # Cancellation
//! A connection ends when either end is dropped, as with TCP.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};
use tokio_util::{either::Either, sync::CancellationToken};

use crate::Rt;

/// One end of a connection.
pub type Connection = Either<TcpStream, DuplexStream>;

/// What lies on the way in one direction before the sender has to wait; as much as TCP takes.
const IN_FLIGHT_BYTES_MAX: usize = 256 << 10;
/// What travels as one piece.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Connections that wait to be accepted; as systems have it.
const BACKLOG: usize = 128;
/// The first port that is given out; below are those that parts ask for by number.
const FIRST_FREE_PORT: u16 = 20_000;

/// Takes connections at one address.
#[derive(Debug)]
pub struct Listener(Listens);

#[derive(Debug)]
enum Listens {
    Tcp(TcpListener),
    Simulated {
        address: SocketAddr,
        network: Network,
        incoming: mpsc::Receiver<DuplexStream>,
    },
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Listens::Tcp(listener) => listener.local_addr(),
            Listens::Simulated { address, .. } => Ok(*address),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's, such as for lack of descriptors.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        match &mut self.0 {
            Listens::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small messages go to and fro; waiting to fill a packet would cost 40 ms each.
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Listens::Simulated { incoming, .. } => match incoming.recv().await {
                Some(stream) => Ok(Either::Right(stream)),
                None => std::future::pending().await,
            },
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listens::Simulated {
            address, network, ..
        } = &self.0
        {
            network.state().listeners.remove(address);
        }
    }
}

impl Rt {
    /// Takes a port; 0 picks a free one.
    ///
    /// # Errors
    /// The system's, such as for a port that is taken.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        match self.network() {
            None => Ok(Listener(Listens::Tcp(TcpListener::bind(address).await?))),
            Some(network) => network.listen(address),
        }
    }
}

/// How a simulated network is. Rates are in millionths of the pieces of data that travel.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkFaults {
    /// Each piece of data travels for a time drawn below this one.
    pub latency_max: Duration,
    /// Pieces that cut their connection.
    pub cuts_per_million: u32,
}

/// The network of a simulation. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<DuplexStream>>,
    next_port: u16,
    faults: NetworkFaults,
    /// Whoever is cut off: data to and from there waits.
    cut_off: Vec<SocketAddr>,
    /// Somebody is not cut off any more. No `watch`: that wakes in an order of its own.
    rejoined: Arc<Notify>,
    pieces: u64,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    pub(crate) fn new() -> Network {
        Network(Arc::new(Mutex::new(State {
            listeners: BTreeMap::new(),
            next_port: FIRST_FREE_PORT,
            faults: NetworkFaults::default(),
            cut_off: Vec::new(),
            rejoined: Arc::default(),
            pieces: 0,
        })))
    }

    /// How it is from now on.
    pub fn set_faults(&self, faults: NetworkFaults) {
        self.state().faults = faults;
    }

    /// From now on data to and from an address waits, as if a cable were out.
    pub fn cut_off(&self, address: SocketAddr) {
        self.state().cut_off.push(address);
    }

    /// Data to and from an address goes on.
    pub fn rejoin(&self, address: SocketAddr) {
        let mut state = self.state();
        state.cut_off.retain(|other| *other != address);
        state.rejoined.notify_waiters();
    }

    /// Pieces of data that have travelled so far.
    pub fn pieces(&self) -> u64 {
        self.state().pieces
    }

    fn listen(&self, mut address: SocketAddr) -> io::Result<Listener> {
        let mut state = self.state();
        if address.port() == 0 {
            address.set_port(state.next_port);
            state.next_port += 1;
        }
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, incoming) = mpsc::channel(BACKLOG);
        state.listeners.insert(address, sender);
        Ok(Listener(Listens::Simulated {
            address,
            network: self.clone(),
            incoming,
        }))
    }

    /// Connects to `host:port`, where the host is an IP address.
    ///
    /// # Errors
    /// Nobody listens there; not an address.
    pub async fn connect(&self, rt: &Rt, address: &str) -> io::Result<DuplexStream> {
        let Ok(address) = address.parse::<SocketAddr>() else {
            let message = format!("{address} is no address of a simulated network");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        self.travel(rt, address).await;
        let listener = self.state().listeners.get(&address).cloned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = listener.ok_or_else(refused)?;
        let (near, near_link) = tokio::io::duplex(IN_FLIGHT_BYTES_MAX);
        let (far_link, far) = tokio::io::duplex(IN_FLIGHT_BYTES_MAX);
        listener.send(far).await.map_err(|_| refused())?;
        let link = Link {
            rt: rt.clone(),
            network: self.clone(),
            address,
            cut: CancellationToken::new(),
        };
        rt.spawn(link.carry(near_link, far_link)).detach();
        Ok(near)
    }

    /// Waits for as long as a piece of data takes.
    async fn travel(&self, rt: &Rt, address: SocketAddr) {
        let (latency_max, rejoined) = {
            let mut state = self.state();
            state.pieces += 1;
            (state.faults.latency_max, state.rejoined.clone())
        };
        if !latency_max.is_zero() {
            let micros = u64::try_from(latency_max.as_micros()).unwrap_or(u64::MAX);
            rt.sleep(Duration::from_micros(rt.random_below(micros)))
                .await;
        }
        loop {
            let again = rejoined.notified();
            if !self.state().cut_off.contains(&address) {
                return;
            }
            again.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies between the two ends of a connection.
struct Link {
    rt: Rt,
    network: Network,
    /// Of the listener.
    address: SocketAddr,
    cut: CancellationToken,
}

impl Link {
    async fn carry(self, near: DuplexStream, far: DuplexStream) {
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        futures::join!(
            self.carry_one_way(near_read, far_write),
            self.carry_one_way(far_read, near_write),
        );
    }

    async fn carry_one_way(&self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {}
            () = self.copy(from, to) => {}
        }
    }

    async fn copy(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut piece = vec![0; PIECE_BYTES_MAX];
        loop {
            let read = from.read(&mut piece).await.unwrap_or(0);
            tracing::trace!(address = %self.address, bytes = read, "a piece of data");
            self.network.travel(&self.rt, self.address).await;
            let cuts = self.network.state().faults.cuts_per_million;
            if cuts > 0 && self.rt.random_below(1_000_000) < u64::from(cuts) {
                self.cut.cancel();
                return;
            }
            if read == 0 {
                // What the other side has to say may still be under way.
                let _ = to.shutdown().await;
                return;
            }
            if to.write_all(&piece[..read]).await.is_err() {
                // Nobody reads: the sender is told, as with TCP's reset.
                self.cut.cancel();
                return;
            }
        }
    }
}
