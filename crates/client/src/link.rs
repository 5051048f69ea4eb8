//! The task behind a handle: carries its messages, and connects again when the connection is lost.
//!
//! Invariants: nothing that was sent for one connection goes out on the next; calls made without a connection fail
//! at once. The task ends with the last handle, after it has written what was sent before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wire::Message;

use crate::connect::{Connection, Reconnect, connect};
use crate::handle::{Deliver, Habits, Handle, Status, lock};
use crate::services::event::Subscribe;
use crate::services::service::Add;
use crate::stream::{read_messages, write_messages};
use crate::uri::Uri;
use crate::{Node, RpcError};

/// What the connection is to, and whether to make it again.
pub(crate) struct Link {
    pub(crate) target: Option<Uri>,
    pub(crate) again: Option<Reconnect>,
}

/// How a connection ended.
enum End {
    /// The last handle is gone.
    Unused,
    /// The other side is gone.
    Lost,
}

/// A handle over `connection`.
pub(crate) fn start(connection: Connection, link: Link, habits: Habits) -> Handle {
    // Messages wait here while the socket is full. What can wait is bounded by the calls in flight and by what the
    // program says without being asked, which it has to bound itself: `Handle::send` cannot wait.
    let (out, queue) = unbounded_channel();
    let up = Arc::new(AtomicBool::new(true));
    let gate = up.clone();
    let sink = move |msg| gate.load(Ordering::Acquire) && out.send(msg).is_ok();
    let (handle, deliver) = Handle::with_habits(sink, habits);
    tokio::spawn(run(connection, link, deliver, queue, up));
    handle
}

async fn run(
    mut connection: Connection,
    link: Link,
    deliver: Deliver,
    mut queue: UnboundedReceiver<Message>,
    up: Arc<AtomicBool>,
) {
    let mut count = 0;
    loop {
        match serve(connection, &deliver, &mut queue).await {
            End::Unused => return,
            End::Lost => {}
        }
        let (Some(target), Some(policy)) = (&link.target, &link.again) else {
            return;
        };
        up.store(false, Ordering::Release);
        deliver.suspend();
        let next = tokio::select! {
            next = again(target, policy) => next,
            () = deliver.unused() => return,
        };
        connection = match next {
            Some(connection) => connection,
            None => return,
        };
        while queue.try_recv().is_ok() {}
        count += 1;
        up.store(true, Ordering::Release);
        deliver.resume();
        if let Some(handle) = deliver.handle() {
            tokio::spawn(restore(handle, count));
        }
    }
}

/// A new connection, or `None` when the policy gives up.
async fn again(target: &Uri, policy: &Reconnect) -> Option<Connection> {
    let once = Reconnect {
        attempts: Some(1),
        ..*policy
    };
    let mut n = 0;
    loop {
        tokio::time::sleep(policy.delay(n)?).await;
        if let Ok(connection) = connect(target, &once).await {
            return Some(connection);
        }
        n += 1;
    }
}

/// Carry messages until the connection or its last user is gone.
async fn serve(
    connection: Connection,
    deliver: &Deliver,
    queue: &mut UnboundedReceiver<Message>,
) -> End {
    let Connection {
        mut reader,
        mut writer,
    } = connection;
    let unused = {
        let read = read_messages(&mut reader, |msg| deliver.deliver(msg));
        let write = write_messages(&mut writer, queue);
        tokio::select! {
            // Any failure is the end of the connection: pending calls get ECONNRESET.
            _ = read => false,
            _ = write => false,
            () = deliver.unused() => true,
        }
    };
    if !unused {
        return End::Lost;
    }
    queue.close();
    // Whoever dropped the handle does not wait for this.
    let _ = write_messages(&mut writer, queue).await;
    let _ = writer.shutdown().await;
    End::Unused
}

/// Register with a new broker what was registered with the former one.
///
/// A service name that somebody else has taken meanwhile cannot be restored: its requests end, as seen by
/// [`Requests::recv`](crate::Requests::recv).
async fn restore(handle: Handle, connection: u32) {
    let (prefixes, services) = {
        let receivers = lock(&handle.0.receivers);
        let prefixes: Vec<(String, u32)> = receivers
            .subscriptions
            .prefixes()
            .map(|(prefix, count)| (prefix.to_owned(), count))
            .collect();
        let services: Vec<String> = receivers.services.keys().cloned().collect();
        (prefixes, services)
    };
    let subscribed: Result<(), RpcError> = async {
        for (topic, count) in &prefixes {
            for _ in 0..*count {
                handle.ask(Node::Any, &Subscribe { topic }).await?;
            }
        }
        for service in &services {
            match handle.ask(Node::Any, &Add { service }).await {
                Err(e) if e.errno == libc::ECONNRESET => return Err(e),
                Err(_) => drop(lock(&handle.0.receivers).services.remove(service)),
                Ok(_) => {}
            }
        }
        Ok(())
    }
    .await;
    // Otherwise it is lost again already, and the next connection restores everything.
    if subscribed.is_ok() {
        handle.set_status(Status::Connected(connection));
    }
}
