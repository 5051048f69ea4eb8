//! Answers questions about messages, for the comparison with upstream in `bench/differential.d/wire.py`.
//!
//! Reads lines {"op", "input"}, prints lines {"ok": …} or {"error": TEXT}.

use std::io::{BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Credentials, Flags, Glob, Kind, Match, Message, USERID_UNKNOWN};

#[derive(Deserialize)]
struct Question {
    op: String,
    input: Value,
}

/// A message to build.
#[derive(Deserialize)]
struct Spec {
    r#type: u8,
    topic: Option<String>,
    payload: Option<String>,
    userid: Option<u32>,
    rolemask: Option<u32>,
    aux1: Option<u32>,
    aux2: Option<u32>,
    matchtag: Option<u32>,
    #[serde(default)]
    routes: Routes,
    #[serde(default)]
    streaming: bool,
    #[serde(default)]
    private: bool,
    want: Option<Want>,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Routes {
    #[default]
    None,
    Names(Vec<String>),
    Count(usize),
}

#[derive(Deserialize)]
struct Want {
    typemask: u8,
    matchtag: u32,
    glob: String,
}

type Failure = Box<dyn std::error::Error>;

fn base64(text: &str) -> Result<Bytes, Failure> {
    Ok(BASE64.decode(text)?.into())
}

fn encoded(msg: &Message) -> String {
    let mut buf = BytesMut::new();
    msg.encode(&mut buf);
    BASE64.encode(buf)
}

fn fields(msg: &Message) -> Value {
    let mut out = json!({
        "type": msg.kind().bit(), "userid": msg.userid(), "rolemask": msg.rolemask(),
        "private": msg.is_private(), "streaming": msg.is_streaming(), "noresponse": msg.no_response(),
        "topic": msg.has_topic().then(|| msg.topic()),
        "payload": msg.payload().map(|p| BASE64.encode(p)),
        "hops": msg.flags().has(Flags::ROUTE).then(|| msg.routes().len()),
        "again": encoded(msg),
    });
    match msg.kind() {
        Kind::Request { nodeid, matchtag } => {
            out["nodeid"] = nodeid.into();
            out["matchtag"] = matchtag.into();
        }
        Kind::Response { errnum, matchtag } => {
            out["errnum"] = errnum.into();
            out["matchtag"] = matchtag.into();
        }
        Kind::Event { sequence } => out["sequence"] = sequence.into(),
        Kind::Control { kind, status } => out["control"] = json!([kind, status]),
    }
    if let (Some(first), Some(last)) = (msg.sender(), msg.next_hop()) {
        out["first"] = first.as_str().into();
        out["last"] = last.as_str().into();
        if first.is_ascii() && last.is_ascii() && msg.routes().len() < 3 {
            out["routes"] = msg.route_stack().to_string().into();
        }
    }
    out
}

fn build(spec: &Spec) -> Result<Message, Failure> {
    let payload = spec.payload.as_deref().map(base64).transpose()?;
    let payload = payload.filter(|p| !p.is_empty());
    let flags = [
        (spec.streaming, Flags::STREAMING),
        (spec.private, Flags::PRIVATE),
    ];
    let flags = flags.into_iter().filter(|f| f.0).map(|f| f.1).sum();
    let (aux1, aux2) = (spec.aux1.unwrap_or(0), spec.aux2.unwrap_or(0));
    let tag = spec.matchtag.unwrap_or(aux2);
    let topic = spec.topic.as_deref().filter(|_| spec.r#type != 8);
    let mut msg = Message::build(
        match spec.r#type {
            1 => Kind::Request {
                nodeid: aux1,
                matchtag: tag,
            },
            2 => Kind::Response {
                errnum: aux1,
                matchtag: tag,
            },
            4 => Kind::Event { sequence: aux1 },
            _ => Kind::Control {
                kind: aux1,
                status: aux2,
            },
        },
        flags,
        topic,
        payload,
    );
    msg.set_credentials(Credentials {
        userid: spec.userid.unwrap_or(USERID_UNKNOWN),
        rolemask: spec.rolemask.unwrap_or(0),
    });
    match &spec.routes {
        Routes::None => {}
        Routes::Names(names) => {
            msg.enable_routes();
            names.iter().for_each(|hop| msg.push_route(hop.into()));
        }
        Routes::Count(n) => (0..*n).for_each(|_| msg.push_route("r".into())),
    }
    Ok(msg)
}

fn answer(line: &str) -> Result<Value, Failure> {
    let Question { op, input } = serde_json::from_str(line)?;
    if op.starts_with("decode") {
        let bytes = base64(input.as_str().unwrap_or_default())?;
        return Ok(fields(&Message::decode(&bytes)?));
    }
    let spec: Spec = serde_json::from_value(input)?;
    let msg = build(&spec)?;
    Ok(match (op.as_str(), spec.want) {
        ("match", Some(want)) => {
            let want = Match {
                typemask: want.typemask,
                matchtag: want.matchtag,
                topic: Glob::new(&want.glob),
            };
            want.matches(&msg).into()
        }
        _ => encoded(&msg).into(),
    })
}

fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match answer(&line?) {
            Ok(value) => json!({ "ok": value }),
            Err(e) => json!({ "error": e.to_string() }),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
