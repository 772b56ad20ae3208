//! The `steps` and the `order` that joins them: which one is the reader, which one the writer.

use serde_json::{Map, Value};

use super::faults::Faults;
use super::fields::{Object, show};
use crate::nearest::did_you_mean;

const KEYS: &[&str] = &["name", "category", "stepType", "parameter"];
const IGNORED: &[&str] = &["copies", "displayName", "gui", "description"];

/// One usable step.
pub(super) struct Step<'a> {
    /// JSON pointer of the step.
    pub(super) pointer: String,
    pub(super) name: String,
    category: Category,
    step_type: Option<String>,
    pub(super) parameter: &'a Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Category {
    Reader,
    Writer,
    Processor,
}

/// The two steps that make a job; one is missing when its kind is not supported.
pub(super) struct Steps<'a> {
    pub(super) reader: Option<Step<'a>>,
    pub(super) writer: Option<Step<'a>>,
}

impl Step<'_> {
    /// `starrocks` or `mysql`; noted as a fault and `None` when it is neither, or not in `supported`.
    pub(super) fn kind(&self, supported: &[&'static str], faults: &Faults) -> Option<&'static str> {
        let role = if self.category == Category::Reader { "reader" } else { "writer" };
        let place = format!("{}/stepType", self.pointer);
        let list = supported.join(", ");
        let Some(given) = &self.step_type else {
            faults.error(&place, format!("stepType is required; supported for a {role}: {list}"), "");
            return None;
        };
        let found = supported.iter().find(|kind| **kind == given.as_str()).copied();
        if found.is_none() {
            let guess = did_you_mean(given, supported.iter().copied());
            faults.unsupported(&place, format!("unsupported {role} type {given}; supported: {list}"), guess);
        }
        found
    }
}

/// `None` when the steps are so wrong that looking into them makes no sense.
pub(super) fn read<'a>(root: &Object<'a>, faults: &'a Faults) -> Option<Steps<'a>> {
    let list = match root.get("steps") {
        Some(Value::Array(list)) => list,
        other => {
            let given = other.map_or_else(|| "null".to_owned(), show);
            faults.error("/steps", format!("steps must be a list of steps, not {given}"), "");
            return None;
        }
    };
    let steps: Vec<Step<'_>> =
        list.iter().enumerate().filter_map(|(index, value)| read_step(index, value, faults)).collect();
    refuse_doubled_names(&steps, faults);
    check_hops(root, &steps, faults);
    choose(steps, list.len(), faults)
}

fn read_step<'a>(index: usize, value: &'a Value, faults: &'a Faults) -> Option<Step<'a>> {
    let pointer = format!("/steps/{index}");
    let Value::Object(map) = value else {
        faults.error(&pointer, format!("a step must be an object, not {}", show(value)), "");
        return None;
    };
    let step = Object::new(pointer.clone(), map, faults);
    step.refuse_unknown_keys(KEYS, IGNORED);
    let category = match step.text("category").as_deref() {
        Some("reader") => Category::Reader,
        Some("writer") => Category::Writer,
        Some("processor") => Category::Processor,
        given => {
            let given = given.map_or_else(String::new, |given| format!(", not \"{given}\""));
            let message = format!("category must be reader, writer or processor{given}");
            faults.error(&step.place("category"), message, "");
            return None;
        }
    };
    let name = step.text("name");
    if name.is_none() {
        let message = "a step needs a name, which order.hops refers to";
        faults.error(&step.place("name"), message, "e.g. Reader or Writer");
    }
    let step_type = step.text("stepType");
    let parameter = match step.get("parameter") {
        Some(Value::Object(parameter)) => parameter,
        Some(other) => {
            step.wrong_type("parameter", other, "must be an object");
            return None;
        }
        None if category == Category::Processor => map,
        None => {
            faults.error(&step.place("parameter"), "parameter is required", "an object");
            return None;
        }
    };
    refuse_accounts(&format!("{pointer}/parameter"), parameter, faults);
    let step = Step { pointer, name: name?, category, step_type, parameter };
    if category == Category::Processor {
        refuse_transformations(&step, faults);
    }
    Some(step)
}

/// A script is stored and sent as it is, so there is no place in it for a password.
fn refuse_accounts(pointer: &str, parameter: &Map<String, Value>, faults: &Faults) {
    let connections = parameter.get("connection").and_then(Value::as_array).into_iter().flatten();
    let inner = connections.enumerate().filter_map(|(index, connection)| {
        Some((format!("{pointer}/connection/{index}"), connection.as_object()?))
    });
    for (pointer, map) in std::iter::once((pointer.to_owned(), parameter)).chain(inner) {
        if map.get("password").is_some_and(|value| !value.is_null()) {
            let message = "a password has no place in a script, which is stored and sent as it is";
            let hint = "remove it; the account belongs into the data source, `starlift convert` makes one of a DataX file";
            faults.error(&format!("{pointer}/password"), message, hint);
        }
    }
}

/// Wizards write an empty processor into every job; one that does something would change the data.
fn refuse_transformations(step: &Step<'_>, faults: &Faults) {
    let nodes = step.parameter.get("nodes").and_then(Value::as_array).map_or(0, Vec::len);
    if nodes > 0 {
        faults.unsupported(
            &format!("{}/parameter/nodes", step.pointer),
            format!("transformations are not supported ({nodes} nodes)"),
            "remove the processor or do it in column expressions",
        );
    }
}

fn refuse_doubled_names(steps: &[Step<'_>], faults: &Faults) {
    for (index, step) in steps.iter().enumerate() {
        if steps[..index].iter().any(|earlier| earlier.name == step.name) {
            let message = format!("step name \"{}\" used twice; hops would be ambiguous", step.name);
            faults.error(&format!("{}/name", step.pointer), message, "give each step its own name");
        }
    }
}

/// A step that could not be read was told already; counting it as missing too would be noise.
fn choose<'a>(steps: Vec<Step<'a>>, listed: usize, faults: &Faults) -> Option<Steps<'a>> {
    let all_read = steps.len() == listed;
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for step in steps {
        match step.category {
            Category::Reader => readers.push(step),
            Category::Writer => writers.push(step),
            Category::Processor => {}
        }
    }
    for (steps, role) in [(&readers, "reader"), (&writers, "writer")] {
        let count = steps.len();
        if count > 1 {
            let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
            let message = format!("{count} {role} steps ({})", names.join(", "));
            faults.error("/steps", message, "split the job: one reader and one writer each");
        } else if count == 0 && all_read {
            let message = format!("exactly one reader and one writer step are required; found 0 {role}s");
            faults.error("/steps", message, format!("add a step with category \"{role}\""));
        }
    }
    if readers.len() > 1 || writers.len() > 1 {
        return None;
    }
    Some(Steps { reader: readers.pop(), writer: writers.pop() })
}

/// `order.hops` must lead from the reader to the writer, if need be through an empty processor.
fn check_hops(root: &Object<'_>, steps: &[Step<'_>], faults: &Faults) {
    let order = root.object("order");
    if let Some(order) = &order {
        order.refuse_unknown_keys(&["hops"], &[]);
    }
    let hops = match order.as_ref().and_then(|order| order.get("hops")) {
        None => &[],
        Some(Value::Array(hops)) => hops.as_slice(),
        Some(other) => {
            faults.error("/order/hops", format!("hops must be a list, not {}", show(other)), "");
            return;
        }
    };
    if hops.is_empty() {
        faults.warn("/order/hops", "no hop given; the reader leads to the writer");
        return;
    }
    let mut edges = Vec::new();
    let mut all_good = true;
    for (index, hop) in hops.iter().enumerate() {
        match read_hop(index, hop, steps, faults) {
            Some(edge) => edges.push(edge),
            None => all_good = false,
        }
    }
    if all_good
        && steps.iter().any(|step| step.category == Category::Reader)
        && !reaches_writer(steps, &edges)
    {
        faults.error(
            "/order/hops",
            "no hop leads from the reader to the writer",
            "add one, with their names",
        );
    }
}

/// Indexes of the two steps of a hop.
fn read_hop(index: usize, hop: &Value, steps: &[Step<'_>], faults: &Faults) -> Option<(usize, usize)> {
    let pointer = format!("/order/hops/{index}");
    let Value::Object(map) = hop else {
        faults.error(&pointer, "a hop must be an object with from and to", "");
        return None;
    };
    let hop = Object::new(pointer.clone(), map, faults);
    hop.refuse_unknown_keys(&["from", "to"], &[]);
    let find = |key: &str| {
        let name = hop.text(key).unwrap_or_default();
        let found = steps.iter().position(|step| step.name == name);
        if found.is_none() {
            let guess = did_you_mean(&name, steps.iter().map(|step| step.name.as_str()));
            let message = format!("order.hops[{index}].{key}: no step named \"{name}\"");
            faults.error(&hop.place(key), message, guess);
        }
        found
    };
    let (from, to) = (find("from"), find("to"));
    let (from, to) = (from?, to?);
    if steps[from].category == Category::Writer || steps[to].category == Category::Reader || from == to {
        let message = format!("\"{}\" to \"{}\" is no way for data", steps[from].name, steps[to].name);
        faults.error(&pointer, message, "hop must lead from a reader to a writer");
        return None;
    }
    Some((from, to))
}

fn reaches_writer(steps: &[Step<'_>], edges: &[(usize, usize)]) -> bool {
    let mut reached: Vec<bool> = steps.iter().map(|step| step.category == Category::Reader).collect();
    // Each round reaches at least one more step, or it is the last.
    for _ in steps {
        for &(from, to) in edges {
            reached[to] |= reached[from];
        }
    }
    steps.iter().zip(reached).any(|(step, reached)| reached && step.category == Category::Writer)
}
