//! Typed access to the fields of a JSON object, with errors that name the field as OpenAI clients expect it.
//!
//! `null` counts as absent, as in the OpenAI API. Unknown fields are never looked at.

use serde_json::{Map, Value};

use super::api_error::ApiError;

/// An object of the body and where it stands, for example `messages[2].function`.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a, 'p> {
    object: &'a Map<String, Value>,
    path: &'p str,
}

impl<'a, 'p> Fields<'a, 'p> {
    pub(crate) fn root(object: &'a Map<String, Value>) -> Self {
        Self { object, path: "" }
    }

    /// `value` as an object that stands at `path`.
    pub(crate) fn at(value: &'a Value, path: &'p str) -> Result<Self, ApiError> {
        let object = value
            .as_object()
            .ok_or_else(|| wrong_type(path, "an object", value))?;
        Ok(Self { object, path })
    }

    /// The full name of a field of this object.
    pub(crate) fn name(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&self, field: &str) -> Result<&'a Value, ApiError> {
        self.get(field).ok_or_else(|| {
            let name = self.name(field);
            ApiError::invalid(&name, format!("Missing required parameter: `{name}`."))
        })
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(field, "a string", Value::as_str)
    }

    pub(crate) fn required_text(&self, field: &str) -> Result<&'a str, ApiError> {
        self.required(field)?;
        self.text(field).map(Option::unwrap_or_default)
    }

    pub(crate) fn flag(&self, field: &str) -> Result<bool, ApiError> {
        Ok(self
            .typed(field, "a boolean", Value::as_bool)?
            .unwrap_or(false))
    }

    pub(crate) fn list(&self, field: &str) -> Result<Option<&'a Vec<Value>>, ApiError> {
        self.typed(field, "an array", Value::as_array)
    }

    pub(crate) fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        self.typed(field, "an object", Value::as_object)
    }

    /// A number within `min..=max`.
    pub(crate) fn number(&self, field: &str, min: f64, max: f64) -> Result<Option<f32>, ApiError> {
        let Some(number) = self.typed(field, "a number", Value::as_f64)? else {
            return Ok(None);
        };
        if !(min..=max).contains(&number) {
            return Err(self.out_of_range(field, number, format!("from {min} to {max}")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bounded above; f32 is what the sampler uses"
        )]
        Ok(Some(number as f32))
    }

    /// An integer within `min..=max`.
    pub(crate) fn integer(&self, field: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(number) = self.typed(field, "an integer", Value::as_i64)? else {
            return Ok(None);
        };
        if !(min..=max).contains(&number) {
            return Err(self.out_of_range(field, number, format!("from {min} to {max}")));
        }
        Ok(Some(number))
    }

    /// Refuses a value other than `neutral` of a feature that is not there.
    pub(crate) fn must_be_neutral(&self, field: &str, neutral: f64) -> Result<(), ApiError> {
        let asked = self.typed(field, "a number", Value::as_f64)?;
        #[expect(
            clippy::float_cmp,
            reason = "exactly the neutral value, as the client wrote it"
        )]
        if asked.is_some_and(|asked| asked != neutral) {
            let name = self.name(field);
            let message = format!("`{name}` is not supported here, except for {neutral}.");
            return Err(ApiError::unsupported(name, message));
        }
        Ok(())
    }

    fn out_of_range(
        &self,
        field: &str,
        number: impl std::fmt::Display,
        range: impl std::fmt::Display,
    ) -> ApiError {
        let name = self.name(field);
        let message = format!("`{name}` is {number}, but must be {range}.");
        ApiError::invalid(name, message)
    }

    fn typed<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(wrong_type(&self.name(field), expected, value)),
        }
    }
}

/// The error for a value of another type.
pub(crate) fn wrong_type(path: &str, expected: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::invalid(path, format!("`{path}` must be {expected}, not {found}."))
}
