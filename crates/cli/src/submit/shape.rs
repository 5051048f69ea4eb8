//! `--resources-shape` and `--resources-json`: the whole resource request at once (RFC 46, 14).

use formats::jobspec::Resource;
use serde_json::Value;

use crate::error::Failure;

/// Options for a request that the other options cannot express.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Resources {
    /// Resources as a shape, in place of the other options for them (RFC 46)
    #[arg(long, value_name = "SHAPE", conflicts_with = "resources_json")]
    resources_shape: Option<String>,
    /// Resources from a JSON file: a list, or a jobspec's
    #[arg(long, value_name = "FILE")]
    resources_json: Option<String>,
}

impl Resources {
    /// The request, if there is one.
    pub(super) fn read(&self) -> Result<Option<Vec<Resource>>, Failure> {
        if let Some(shape) = &self.resources_shape {
            let list = formats::shape::parse(shape, "task")
                .map_err(|e| Failure::new(format!("--resources-shape: {e}")))?;
            return Ok(Some(list));
        }
        let Some(path) = &self.resources_json else {
            return Ok(None);
        };
        let fail = |why: String| Failure::new(format!("--resources-json: {path}: {why}"));
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let list = match value {
            Value::Object(mut jobspec) => jobspec
                .remove("resources")
                .ok_or_else(|| fail("key 'resources' is missing".into()))?,
            list => list,
        };
        let list = Resource::list_from_value(list).map_err(|e| fail(e.to_string()))?;
        Ok(Some(list))
    }

    /// Whether a request is given.
    pub(super) fn given(&self) -> bool {
        self.resources_shape.is_some() || self.resources_json.is_some()
    }
}
