//! Values of JSON as values of Lua, and back.

use mlua::{Lua, Table, Value};
use serde_json::{Map, Number, Value as Json};

/// Tables in tables: deeper ones are taken to contain themselves.
const DEPTH: usize = 64;

/// Null is nil.
pub(super) fn to_lua(lua: &Lua, value: &Json) -> mlua::Result<Value> {
    Ok(match value {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Boolean(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Integer(n),
            None => Value::Number(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::String(lua.create_string(s)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for item in items {
                table.raw_push(to_lua(lua, item)?)?;
            }
            Value::Table(table)
        }
        Json::Object(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (key, value) in fields {
                table.raw_set(key.as_str(), to_lua(lua, value)?)?;
            }
            Value::Table(table)
        }
    })
}

/// A table whose keys are 1, 2, ... is an array; one without keys is an object.
pub(super) fn from_lua(value: &Value) -> Result<Json, String> {
    convert(value, DEPTH)
}

fn convert(value: &Value, depth: usize) -> Result<Json, String> {
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Boolean(b) => Json::Bool(*b),
        Value::Integer(n) => Json::from(*n),
        Value::Number(n) => {
            let number = Number::from_f64(*n).ok_or_else(|| format!("{n} cannot be JSON"))?;
            Json::Number(number)
        }
        Value::String(s) => Json::String(s.to_string_lossy()),
        Value::Table(table) => {
            let depth = depth.checked_sub(1).ok_or("tables are nested too deeply")?;
            convert_table(table, depth)?
        }
        other => return Err(format!("a {} cannot be JSON", other.type_name())),
    })
}

fn convert_table(table: &Table, depth: usize) -> Result<Json, String> {
    let entries: Vec<(Value, Value)> = table
        .pairs()
        .collect::<mlua::Result<_>>()
        .map_err(|e| e.to_string())?;
    let length = table.raw_len();
    if length > 0 && entries.len() == length {
        let item = |i| {
            let value: Value = table.raw_get(i).map_err(|e| e.to_string())?;
            convert(&value, depth)
        };
        return (1..=length).map(item).collect();
    }
    let mut fields = Map::new();
    for (key, value) in entries {
        let key = match key {
            Value::String(s) => s.to_string_lossy(),
            Value::Integer(n) => n.to_string(),
            other => return Err(format!("a {} cannot be a key of JSON", other.type_name())),
        };
        fields.insert(key, convert(&value, depth)?);
    }
    Ok(Json::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let lua = Lua::new();
        for value in [
            json!(true),
            json!(-3),
            json!(1.5),
            json!("x"),
            json!([1, ["a"]]),
            json!({"a": {"b": [true]}}),
            json!({}),
            json!(u64::MAX),
        ] {
            let back = from_lua(&to_lua(&lua, &value).unwrap()).unwrap();
            assert_eq!(back.as_f64(), value.as_f64());
            assert!(value.is_number() || back == value, "{value} became {back}");
        }
        assert!(to_lua(&lua, &json!(null)).unwrap().is_nil());
    }

    #[test]
    fn what_is_no_json() {
        let lua = Lua::new();
        for (script, want) in [
            ("return print", "a function cannot be JSON"),
            ("return {[true] = 1}", "a boolean cannot be a key of JSON"),
            ("return 0/0", "NaN cannot be JSON"),
            (
                "local t = {}; t.t = t; return t",
                "tables are nested too deeply",
            ),
        ] {
            let value: Value = lua.load(script).eval().unwrap();
            assert_eq!(from_lua(&value).unwrap_err().replace("-NaN", "NaN"), want);
        }
    }
}
