//! `flux getattr`, `flux setattr`, `flux lsattr`: broker attributes.

use clap::Parser;
use client::services::attr::{ListAttrs, Names, SetAttr};
use client::{Handle, Node};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Outcome};
use crate::output::outln;
use crate::uri;

/// Print a broker attribute.
#[derive(Parser)]
struct Get {
    /// Name of the attribute
    name: String,
}

/// Set a broker attribute.
#[derive(Parser)]
struct Set {
    /// Add the attribute if it does not exist
    #[arg(short, long)]
    force: bool,
    /// Name of the attribute
    name: String,
    /// Its new value
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// List broker attributes.
#[derive(Parser)]
struct List {
    /// Print the values too
    #[arg(short = 'v', long)]
    values: bool,
}

pub(crate) fn get(args: Args) -> Outcome {
    let Get { name } = args.parse()?;
    block_on(async {
        let value = Handle::open(None)
            .await?
            .getattr(&name)
            .await
            .context(&name)?;
        match name.as_str() {
            "parent-uri" => outln!("{}", uri::behind_proxy(value)),
            _ => outln!("{value}"),
        }
        Ok(0)
    })
}

pub(crate) fn set(args: Args) -> Outcome {
    let Set { force, name, value } = args.parse()?;
    block_on(async {
        let handle = Handle::open(None).await?;
        let request = SetAttr {
            name: &name,
            value: &value,
            force,
        };
        handle.ask(Node::Any, &request).await.context(&name)?;
        Ok(0)
    })
}

pub(crate) fn list(args: Args) -> Outcome {
    let List { values } = args.parse()?;
    block_on(async {
        let handle = Handle::open(None).await?;
        let Names { mut names } = handle.ask(Node::Any, &ListAttrs {}).await?;
        names.sort();
        if !values {
            names.iter().for_each(|name| outln!("{name}"));
            return Ok(0);
        }
        let found = futures::future::join_all(names.iter().map(|name| handle.getattr(name))).await;
        for (name, value) in names.iter().zip(found) {
            // An attribute may have gone since it was listed.
            outln!("{name:<40}{}", value.as_deref().unwrap_or("-"));
        }
        Ok(0)
    })
}
