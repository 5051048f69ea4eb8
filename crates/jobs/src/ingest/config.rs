//! What the table `ingest` (flux-config-ingest(5)) and the arguments of the module say. No I/O.

use formats::size;
use serde::Deserialize;
use serde_json::{Map, Value};

/// All that can be set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// What changes a request; `None` if nothing shall.
    pub(super) frobnicator: Option<Stage>,
    /// What may refuse a request; `None` if nothing shall.
    pub(super) validator: Option<Stage>,
    /// A batch is sent when it has this many jobs; 0: as soon as the one before is stored.
    pub(super) batch_count: usize,
    /// Bytes on their way to one worker.
    pub(super) buffer_size: usize,
}

/// The plugins of a stage in their order, and what is said to them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stage {
    /// `None` for those it has when nothing is said.
    pub(super) plugins: Option<Vec<String>>,
    pub(super) args: Vec<String>,
    /// Tables of single plugins, by name.
    pub(super) tables: Map<String, Value>,
}

const BUFFER_SIZE: &str = "10M";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    #[serde(default)]
    batch_count: usize,
    buffer_size: Option<String>,
    #[serde(default)]
    frobnicator: StageTable,
    #[serde(default)]
    validator: StageTable,
}

#[derive(Debug, Default, Deserialize)]
struct StageTable {
    plugins: Option<Vec<String>>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    disable: bool,
    #[serde(flatten)]
    tables: Map<String, Value>,
}

impl StageTable {
    fn stage(self, name: &str) -> Result<Option<Stage>, String> {
        if let Some((key, _)) = self.tables.iter().find(|(_, value)| !value.is_object()) {
            return Err(format!("ingest.{name}.{key}: unknown key"));
        }
        Ok((!self.disable).then_some(Stage {
            plugins: self.plugins,
            args: self.args,
            tables: self.tables,
        }))
    }
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

impl Settings {
    /// Reads both; the arguments say more than the table.
    pub(super) fn parse(config: &Value, args: &[String]) -> Result<Self, String> {
        let mut table = match config.get("ingest") {
            Some(table) => Table::deserialize(table).map_err(|e| format!("ingest: {e}"))?,
            None => Table::default(),
        };
        for arg in args {
            let invalid = |why: String| format!("module argument {arg:?}: {why}");
            match arg.split_once('=') {
                Some(("validator-plugins", list)) => table.validator.plugins = Some(words(list)),
                Some(("validator-args", list)) => table.validator.args = words(list),
                Some(("batch-count", count)) => {
                    let count = count.parse();
                    table.batch_count = count.map_err(|_| invalid("is no count".to_owned()))?;
                }
                Some(("buffer-size", size)) => table.buffer_size = Some(size.to_owned()),
                None if arg == "disable-validator" => table.validator.disable = true,
                // Jobs of root are taken like those of any other owner.
                None if arg == "allow-root-jobs" => {}
                _ => return Err(invalid("is not known".to_owned())),
            }
        }
        let buffer = table.buffer_size.as_deref().unwrap_or(BUFFER_SIZE);
        let buffer_size =
            size::parse(buffer).map_err(|e| format!("buffer-size {buffer:?}: {e}"))?;
        Ok(Self {
            frobnicator: table.frobnicator.stage("frobnicator")?,
            validator: table.validator.stage("validator")?,
            batch_count: table.batch_count,
            // `size::parse` gives no more than 2 GiB.
            buffer_size: usize::try_from(buffer_size).unwrap_or(usize::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(ingest: Value, args: &[&str]) -> Result<Settings, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Settings::parse(&json!({ "ingest": ingest }), &args)
    }

    #[test]
    fn nothing_said_is_the_built_in_pipeline() {
        let settings = Settings::parse(&json!({}), &[]).unwrap();
        assert_eq!(settings.frobnicator, Some(Stage::default()));
        assert_eq!(settings.validator, Some(Stage::default()));
        assert_eq!((settings.batch_count, settings.buffer_size), (0, 10 << 20));
    }

    #[test]
    fn tables_and_arguments() {
        let table = json!({
            "batch-count": 3,
            "buffer-size": "4.5M",
            "frobnicator": {"disable": true},
            "validator": {"plugins": ["a"], "args": ["--x"], "require-instance": {"minnodes": 4}},
        });
        let settings = parse(table.clone(), &[]).unwrap();
        assert_eq!(settings.frobnicator, None);
        let validator = settings.validator.unwrap();
        assert_eq!(validator.plugins, Some(vec!["a".to_owned()]));
        assert_eq!(validator.args, ["--x"]);
        assert_eq!(validator.tables["require-instance"]["minnodes"], 4);
        assert_eq!((settings.batch_count, settings.buffer_size), (3, 9 << 19));
        let args = [
            "validator-plugins=b,c",
            "validator-args=--y,--z",
            "batch-count=0",
            "buffer-size=1k",
        ];
        let settings = parse(table.clone(), &args).unwrap();
        let validator = settings.validator.unwrap();
        assert_eq!(
            validator.plugins,
            Some(vec!["b".to_owned(), "c".to_owned()])
        );
        assert_eq!(validator.args, ["--y", "--z"]);
        assert_eq!((settings.batch_count, settings.buffer_size), (0, 1024));
        assert_eq!(
            parse(table, &["disable-validator"]).unwrap().validator,
            None
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (table, args, want) in [
            (
                json!(1),
                vec![],
                "ingest: invalid type: integer `1`, expected struct Table",
            ),
            (
                json!({"validator": {"plugins": "a"}}),
                vec![],
                "ingest: invalid type: string \"a\", expected a sequence",
            ),
            (
                json!({"validator": {"plugin": "a"}}),
                vec![],
                "ingest.validator.plugin: unknown key",
            ),
            (
                json!({"buffer-size": "much"}),
                vec![],
                "buffer-size \"much\": it is no number of bytes",
            ),
            (
                json!({}),
                vec!["batch-count=x"],
                "module argument \"batch-count=x\": is no count",
            ),
            (
                json!({}),
                vec!["badopt=xyz"],
                "module argument \"badopt=xyz\": is not known",
            ),
        ] {
            assert_eq!(parse(table, &args).unwrap_err(), want);
        }
    }

    proptest! {
        #[test]
        fn any_argument_is_taken_or_refused(arg in ".{0,40}", value in ".{0,20}") {
            if let Err(why) = parse(json!({ "buffer-size": value }), &[&arg]) {
                prop_assert!(why.contains("is not known") || why.starts_with("buffer-size"), "{}", why);
            }
        }
    }
}
