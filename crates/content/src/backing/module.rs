//! Stores as broker modules.
//!
//! Modules: `content-sqlite` and `content-files`, on rank 0. Files are in `statedir`; unless that is removed with the
//! instance (`statedir-cleanup`), an acknowledgement means that a crash takes nothing.

use std::path::PathBuf;

use client::module::{Context, ModuleError};
use client::{Handle, Node, RpcError};
use serde_json::{Value, json};

use super::journal::{self, Journaled, Settings};
use super::server::serve;
use super::sqlite::Options;
use super::{Backing as _, BackingError, Durability, Files, Sqlite};

impl From<BackingError> for RpcError {
    fn from(e: BackingError) -> Self {
        match &e {
            BackingError::Option { .. } => Self::explained(e.errno(), e),
            _ => Self::new(e.errno(), e.to_string()),
        }
    }
}

impl From<BackingError> for ModuleError {
    fn from(e: BackingError) -> Self {
        RpcError::from(e).into()
    }
}

/// Where files go, and whether they stay.
async fn place(handle: &Handle) -> Result<(PathBuf, Durability), ModuleError> {
    let Ok(dir) = handle.getattr("statedir").await else {
        return Ok((handle.getattr("rundir").await?.into(), Durability::Off));
    };
    let temporary = handle.getattr("statedir-cleanup").await.as_deref() == Ok("1");
    let durability = match temporary {
        true => Durability::Off,
        false => Durability::Full,
    };
    Ok((dir.into(), durability))
}

/// The module `content-sqlite`. Arguments, also in the table of its name: `truncate`, `journal_mode=`, `synchronous=`.
pub async fn sqlite(ctx: Context) -> Result<(), ModuleError> {
    let (dir, mut durability) = place(&ctx.handle).await?;
    let path = dir.join("content.sqlite");
    let before = dir.join("content.journal");
    if journal::is_there(&before) {
        // It holds what was acknowledged when the file was to stay.
        durability = Durability::Full;
    }
    let mut options = Options::new(durability);
    let config: Value = match ctx.handle.call("config.get", Node::Any, &json!({})).await {
        Ok(config) => config,
        // Without the service there is no configuration.
        Err(e) if e.errno == libc::ENOSYS => Value::Null,
        Err(e) => return Err(e.into()),
    };
    let table = &config["content-sqlite"];
    if let Some(mode) = table["journal_mode"].as_str() {
        options.set_journal_mode(mode)?;
    }
    if let Some(mode) = table["synchronous"].as_str() {
        options.set_synchronous(mode)?;
    }
    if let Some(number) = table.get("max_checkpoints") {
        options.set_max_checkpoints(number)?;
    }
    for arg in &ctx.args {
        match arg.split_once('=') {
            None if arg == "truncate" => {
                Sqlite::remove(&path)?;
                journal::remove(&before)?;
            }
            Some(("journal_mode", mode)) => options.set_journal_mode(mode)?,
            Some(("synchronous", mode)) => options.set_synchronous(mode)?,
            _ => return Err(ModuleError::unknown_argument(arg)),
        }
    }
    let syncs = options.syncs();
    let store = Sqlite::open_with(&path, options).await?;
    let config = &store.describe()["config"];
    let word = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let (mode, synchronous) = (word("journal_mode"), word("synchronous"));
    let text = format!(
        "{} ({} bytes) journal_mode={mode} synchronous={synchronous}",
        path.display(),
        store.used().await?
    );
    ctx.handle.say(&ctx.name, libc::LOG_DEBUG as u8, &text);
    // A file that goes away with the instance is written behind anyway.
    if durability == Durability::Off {
        return serve(ctx, store, true).await;
    }
    let settings = Settings {
        syncs,
        ..Settings::default()
    };
    let store = Journaled::open(store, &before, settings).await?;
    serve(ctx, store, true).await
}

/// The module `content-files`. Arguments: `truncate`; `testing`, not to register.
pub async fn files(ctx: Context) -> Result<(), ModuleError> {
    let (dir, durability) = place(&ctx.handle).await?;
    let path = dir.join("content.files");
    let mut register = true;
    for arg in &ctx.args {
        match arg.as_str() {
            "truncate" => Files::remove(&path)?,
            "testing" => register = false,
            _ => return Err(ModuleError::unknown_argument(arg)),
        }
    }
    let store = Files::open(&path, durability == Durability::Full)?;
    serve(ctx, store, register).await
}
