//! From the policy's reply to an action that fits the server's schema.
//!
//! A reply that is one JSON object with the schema's fields is the action. Else, where the schema has one field to fill, the reply is
//! its value. Else it is no action, and the policy is told what one looks like. Ranges are the server's to check.

use serde_json::{Map, Value, json};

use super::wire::short;

/// Fields that are read; a schema with more is no action that a model could write.
const FIELDS: usize = 64;

/// What an action of this server looks like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form {
    fields: Vec<Field>,
    /// The one field that a bare reply fills.
    bare: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    name: String,
    kind: Kind,
    required: bool,
    /// What the server says about it, for the policy.
    about: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    Truth,
    List,
    Object,
    /// The schema says something else (a union, a reference): the server decides.
    Any,
}

impl Kind {
    fn of(schema: &Value) -> Self {
        match schema["type"].as_str() {
            Some("string") => Self::Text,
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("boolean") => Self::Truth,
            Some("array") => Self::List,
            Some("object") => Self::Object,
            _ => Self::Any,
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Truth => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
            Self::Any => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Truth => "true or false",
            Self::List => "a list",
            Self::Object => "an object",
            Self::Any => "any value",
        }
    }
}

/// Range, choices and description, in words.
fn about(schema: &Value) -> String {
    let mut parts = Vec::new();
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(min), Some(max)) => parts.push(format!("from {min} to {max}")),
        (Some(min), None) => parts.push(format!("at least {min}")),
        (None, Some(max)) => parts.push(format!("at most {max}")),
        (None, None) => {}
    }
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
        parts.push(format!("one of {}", choices.join(", ")));
    }
    if let Some(description) = schema["description"].as_str() {
        parts.push(description.to_owned());
    }
    short(&parts.join("; "))
}

impl Form {
    /// Reads a server's action schema. `chosen` names the field that takes a bare reply, where the schema leaves a choice.
    pub(super) fn read(schema: &Value, chosen: Option<&str>) -> Result<Self, String> {
        let Some(properties) = schema["properties"].as_object() else {
            return Err("the schema of its actions has no `properties`".into());
        };
        if properties.len() > FIELDS {
            return Err(format!(
                "its actions have {} fields; at most {FIELDS} are read",
                properties.len()
            ));
        }
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let fields: Vec<Field> = properties
            .iter()
            // Every action of OpenEnv has it; it is for whoever trains.
            .filter(|(name, _)| name.as_str() != "metadata")
            .map(|(name, schema)| Field {
                name: name.clone(),
                kind: Kind::of(schema),
                required: required.iter().any(|r| r.as_str() == Some(name)),
                about: about(schema),
            })
            .collect();
        let bare = match chosen {
            Some(chosen) => Some(
                fields
                    .iter()
                    .position(|field| field.name == chosen)
                    .ok_or_else(|| {
                        format!("its actions have no field `{chosen}`, which `action-field` names")
                    })?,
            ),
            None => only(&fields),
        };
        Ok(Self { fields, bare })
    }

    /// What the policy is told about actions.
    pub(super) fn describe(&self) -> String {
        let described = |field: &Field| {
            let dash = if field.about.is_empty() { "" } else { ": " };
            format!("{}{dash}{}", field.kind.name(), field.about)
        };
        if let Some(field) = self.bare.map(|index| &self.fields[index]) {
            return match field.kind {
                Kind::Text => format!(
                    "Your whole reply is the action's `{}`, {}.",
                    field.name,
                    described(field)
                ),
                _ => format!(
                    "Reply with the action's `{}` and nothing else, {}.",
                    field.name,
                    described(field)
                ),
            };
        }
        let mut lines = vec!["Reply with one JSON object and nothing else. Its fields:".to_owned()];
        for field in &self.fields {
            let optional = if field.required { "" } else { " (optional)" };
            lines.push(format!(
                "- `{}`{optional}, {}",
                field.name,
                described(field)
            ));
        }
        lines.join("\n")
    }

    /// The action that a reply stands for, or why it is none.
    pub(super) fn action(&self, reply: &str) -> Result<Value, String> {
        let inner = unfenced(reply.trim());
        let parsed: Option<Value> = serde_json::from_str(inner).ok();
        let mut misfit = None;
        if let Some(Value::Object(object)) = &parsed {
            match self.fits(object) {
                Ok(()) => return Ok(Value::Object(object.clone())),
                Err(why) => misfit = Some(why),
            }
        }
        let Some(field) = self.bare.map(|index| &self.fields[index]) else {
            return Err(misfit.unwrap_or_else(|| "it is not one JSON object".into()));
        };
        match field.kind {
            Kind::Text => Ok(json!({ field.name.as_str(): reply.trim() })),
            kind => parsed
                .filter(|value| kind.takes(value))
                .map(|value| json!({ field.name.as_str(): value }))
                .ok_or_else(|| format!("it is not {}", kind.name())),
        }
    }

    fn fits(&self, object: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in object {
            let Some(field) = self.fields.iter().find(|field| field.name == *name) else {
                return Err(format!("an action has no field `{}`", short(name)));
            };
            if !field.kind.takes(value) {
                return Err(format!("`{}` is not {}", field.name, field.kind.name()));
            }
        }
        let missing = self
            .fields
            .iter()
            .find(|field| field.required && !object.contains_key(&field.name));
        match missing {
            Some(field) => Err(format!("`{}` is missing", field.name)),
            None => Ok(()),
        }
    }
}

/// The one field that a bare reply can only mean: the only one, the only required one, or else the only string.
fn only(fields: &[Field]) -> Option<usize> {
    let single = |wanted: &dyn Fn(&Field) -> bool| {
        let mut found = fields.iter().enumerate().filter(|(_, field)| wanted(field));
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    };
    let required = fields.iter().filter(|field| field.required).count();
    match (fields.len(), required) {
        (1, _) => Some(0),
        (_, 1) => single(&|field| field.required),
        (_, 0) => single(&|field| field.kind == Kind::Text),
        _ => None,
    }
}

/// What is inside a fenced block, when the whole reply is one.
fn unfenced(reply: &str) -> &str {
    let inner = reply
        .strip_prefix("```")
        .and_then(|rest| rest.strip_suffix("```"));
    match inner.and_then(|inner| inner.split_once('\n')) {
        Some((_language, inner)) => inner.trim(),
        None => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(properties: Value, required: Value) -> Form {
        Form::read(
            &json!({"properties": properties, "required": required}),
            None,
        )
        .unwrap()
    }

    #[test]
    fn a_reply_fills_the_one_string_of_the_schema() {
        let echo = form(
            json!({"message": {"type": "string"}, "metadata": {"type": "object"}}),
            json!(["message"]),
        );
        assert_eq!(echo.action(" Hello.\n"), Ok(json!({"message": "Hello."})));
        assert_eq!(
            echo.action("```json\n{\"message\": \"Hi\"}\n```"),
            Ok(json!({"message": "Hi"}))
        );
        // JSON that is no action is the text that it is.
        assert_eq!(
            echo.action(r#"{"message": 3}"#),
            Ok(json!({"message": "{\"message\": 3}"}))
        );
        assert!(echo.describe().contains("Your whole reply"));
    }

    #[test]
    fn a_reply_fills_the_one_number_of_the_schema_or_is_no_action() {
        let lake = form(
            json!({"action": {"type": "integer", "minimum": 0, "maximum": 3}}),
            json!(["action"]),
        );
        assert_eq!(lake.action("2"), Ok(json!({"action": 2})));
        assert_eq!(lake.action("{\"action\": 1}"), Ok(json!({"action": 1})));
        for reply in ["left", "2.5", "", "[2]", "\"2\""] {
            assert_eq!(
                lake.action(reply),
                Err("it is not an integer".into()),
                "{reply}"
            );
        }
        assert!(
            lake.describe().contains("an integer: from 0 to 3"),
            "{}",
            lake.describe()
        );
    }

    #[test]
    fn an_action_of_several_fields_is_a_json_object_with_them() {
        let click = form(
            json!({"x": {"type": "integer"}, "y": {"type": "integer"}, "why": {"type": "string"}}),
            json!(["x", "y"]),
        );
        let whole = json!({"x": 1, "y": 2});
        assert_eq!(click.action(&whole.to_string()), Ok(whole));
        for (reply, why) in [
            ("go left", "not one JSON object"),
            ("{\"x\": 1}", "`y` is missing"),
            ("{\"x\": 1, \"y\": \"2\"}", "`y` is not an integer"),
            ("{\"x\": 1, \"y\": 2, \"z\": 3}", "no field `z`"),
        ] {
            let error = click.action(reply).unwrap_err();
            assert!(error.contains(why), "{reply}: {error}");
        }
        assert!(click.describe().contains("- `why` (optional), a string"));
    }

    #[test]
    fn the_operator_chooses_where_the_schema_leaves_a_choice() {
        let schema =
            json!({"properties": {"code": {"type": "string"}, "note": {"type": "string"}}});
        let open = Form::read(&schema, None).unwrap();
        assert!(open.action("print(1)").is_err());
        let chosen = Form::read(&schema, Some("code")).unwrap();
        assert_eq!(chosen.action("print(1)"), Ok(json!({"code": "print(1)"})));
        assert!(
            Form::read(&schema, Some("cod"))
                .unwrap_err()
                .contains("action-field")
        );
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        assert!(
            Form::read(&Value::Null, None)
                .unwrap_err()
                .contains("properties")
        );
        let many: Map<String, Value> = (0..65).map(|i| (format!("f{i}"), json!({}))).collect();
        let error = Form::read(&json!({"properties": many}), None).unwrap_err();
        assert!(error.contains("65 fields"), "{error}");
    }
}
