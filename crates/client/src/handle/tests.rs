//! The handle with a sink that the test reads: what is sent, and what becomes of what arrives.

use super::*;
use serde_json::json;

/// A handle whose messages go nowhere.
fn silent() -> (Handle, Deliver) {
    Handle::with_sink(|_| true)
}

#[tokio::test]
async fn a_lost_connection_fails_calls_before_and_after() {
    let (handle, deliver) = silent();
    let before = handle.rpc("a.b", Node::Any, &json!({}));
    let mut stream = handle.stream("a.c", Node::Any, &json!({}));
    let mut inbox = handle.inbox().unwrap();
    deliver.close();
    assert_eq!(before.await.unwrap_err().errno, libc::ECONNRESET);
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().errno,
        libc::ECONNRESET
    );
    assert!(inbox.recv().await.is_none());
    assert_eq!(*handle.status().borrow(), Status::Closed);
    let after = handle.rpc("a.b", Node::Any, &json!({}));
    assert_eq!(after.await.unwrap_err().errno, libc::ECONNRESET);
    let mut stream = handle.stream("a.c", Node::Any, &json!({}));
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().errno,
        libc::ECONNRESET
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn streams_end_with_enodata_and_untagged_responses_go_to_the_inbox() {
    let (tx, mut sent) = unbounded_channel();
    let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
    let mut inbox = handle.inbox().unwrap();
    let mut stream = handle.stream("s.t", Node::Rank(3), &json!({}));
    let request = sent.recv().await.unwrap();
    deliver.deliver(request.response(0, None));
    deliver.deliver(request.error_response(&RpcError::errno(libc::ENODATA)));
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.is_none());
    assert!(stream.next().await.is_none());
    handle.request_untagged("sched.alloc", &json!({})).unwrap();
    let request = sent.recv().await.unwrap();
    assert_eq!(request.matchtag(), 0);
    deliver.deliver(request.response(0, None));
    assert!(inbox.recv().await.unwrap().is_response());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_timed_out_never_hears_of_it_again() {
    let (tx, mut sent) = unbounded_channel();
    let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
    let slow = handle.rpc("a.b", Node::Any, &json!({}));
    let limit = std::time::Duration::from_secs(3);
    assert_eq!(
        slow.timeout(limit).await.unwrap_err().errno,
        libc::ETIMEDOUT
    );
    let late = sent.recv().await.unwrap();
    let next = handle.rpc("a.b", Node::Any, &json!({}));
    let request = sent.recv().await.unwrap();
    deliver.deliver(late.response(0, Some(wire::string_payload("late"))));
    deliver.deliver(request.response(0, Some(wire::string_payload("own"))));
    assert_eq!(next.timeout(limit).await.unwrap().text(), Some("own"));
}

#[tokio::test]
async fn a_call_that_has_ended_is_not_cancelled() {
    let (tx, mut sent) = unbounded_channel();
    let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
    let streams = [1, 2].map(|_| handle.stream("s.t", Node::Any, &json!({})));
    let first = sent.recv().await.unwrap();
    let second = sent.recv().await.unwrap();
    // The end has come, though nobody has read it.
    deliver.deliver(first.error_response(&RpcError::errno(libc::ENODATA)));
    streams.iter().for_each(|stream| stream.cancel("s.cancel"));
    let cancel = sent.recv().await.unwrap();
    let about: serde_json::Value = cancel.json().unwrap();
    assert_eq!(about["matchtag"], second.matchtag());
    assert!(sent.try_recv().is_err());
}

#[tokio::test]
async fn requests_nobody_reads_are_declined() {
    let (tx, mut sent) = unbounded_channel();
    let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
    drop(handle.inbox());
    deliver.deliver(Message::request("x.y", 0, 4, 0, None));
    let answer = sent.recv().await.unwrap();
    assert_eq!(answer.into_result().unwrap_err().errno, libc::ENOSYS);
}

#[test]
fn habits_mark_what_is_sent() {
    let (tx, mut sent) = unbounded_channel();
    let claim = Credentials {
        userid: 7,
        rolemask: 2,
    };
    let habits = Habits {
        claim,
        trace: false,
    };
    let (handle, _deliver) = Handle::with_habits(move |msg| tx.send(msg).is_ok(), habits);
    handle.notify("a.b", Node::Any, &json!({}));
    assert_eq!(sent.try_recv().unwrap().credentials(), claim);
}
