//! `holdshort demo-server`: a small MCP server on stdio that stands for a billing system.
//!
//! Started by the demo's gate, and by `examples/billing`. It has three tools and a ledger; it keeps no secret, speaks to
//! nobody else, and knows nothing of gates: whatever reaches it, it does.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, Write},
    path::Path,
};

use serde_json::{Value, json};

use crate::exit::Exit;

/// The revision that is offered to a client which asks for one that is not known here.
const PROTOCOL_VERSION: &str = "2025-11-25";

/// The revisions that need nothing of a server that this one does not do.
const KNOWN_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", PROTOCOL_VERSION];

/// JSON-RPC 2.0, section 5.1.
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// Serves until stdin ends. What the tools do is written to `ledger`, one line each, if there is one.
pub(in crate::cli) fn run(ledger: Option<&Path>) -> Exit {
    match serve(ledger) {
        Ok(()) => Exit::Done,
        // The client has gone: nobody is left who could be told.
        Err(_) => Exit::Failed,
    }
}

fn serve(ledger: Option<&Path>) -> io::Result<()> {
    let mut ledger = match ledger {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        if let Some(answer) = answer(&message, ledger.as_mut()) {
            writeln!(stdout, "{answer}")?;
            stdout.flush()?;
        }
    }
    Ok(())
}

/// The answer to a request; nothing for anything else.
fn answer(message: &Value, ledger: Option<&mut File>) -> Option<Value> {
    let (id, method) = (message.get("id")?, message.get("method")?.as_str()?);
    let params = &message["params"];
    let result = match method {
        "initialize" => Ok(initialize(params)),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(tools()),
        "tools/call" => call(params, ledger),
        _ => Err((METHOD_NOT_FOUND, format!("there is no method `{method}`"))),
    };
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    })
}

fn initialize(params: &Value) -> Value {
    let wanted = params["protocolVersion"].as_str().unwrap_or_default();
    let version = if KNOWN_VERSIONS.contains(&wanted) { wanted } else { PROTOCOL_VERSION };
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "billing", "version": env!("CARGO_PKG_VERSION")},
    })
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        let schema = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": name, "description": description, "inputSchema": schema})
    };
    let order = json!({"type": "string", "description": "The order's number, such as A-1042."});
    let amount = json!({"type": "number", "description": "In dollars."});
    json!({"tools": [
        tool("get_order", "Looks up an order.", json!({"order": order}), &["order"]),
        tool(
            "send_refund",
            "Sends money back for an order.",
            json!({"order": order, "amount": amount}),
            &["order", "amount"],
        ),
        tool(
            "delete_customer",
            "Deletes a customer and all orders of theirs.",
            json!({"customer": {"type": "string"}}),
            &["customer"],
        ),
    ]})
}

/// Does what a tool does. An argument that is missing is the tool's own error, which models read.
fn call(params: &Value, ledger: Option<&mut File>) -> Result<Value, (i32, String)> {
    let arguments = &params["arguments"];
    let text = |name: &str| {
        arguments[name].as_str().filter(|text| !text.is_empty()).ok_or_else(|| format!("`{name}` is missing"))
    };
    let done = match params["name"].as_str().unwrap_or_default() {
        "get_order" => text("order").map(|order| Done {
            says: format!("Order {order}: a desk and a chair, paid $970.00 by customer C-7, not refunded."),
            entry: None,
        }),
        "send_refund" => text("order").and_then(|order| {
            let amount = arguments["amount"].as_f64().filter(|amount| *amount > 0.0);
            let amount = amount.ok_or_else(|| "`amount` is not a number above 0".to_owned())?;
            Ok(Done {
                says: format!("Refunded ${amount:.2} on order {order}."),
                entry: Some(format!("refund ${amount:.2} on order {order}")),
            })
        }),
        "delete_customer" => text("customer").map(|customer| Done {
            says: format!("Deleted customer {customer}."),
            entry: Some(format!("delete customer {customer}")),
        }),
        other => return Err((INVALID_PARAMS, format!("there is no tool `{other}`"))),
    };
    let done = done.and_then(|done| done.written_to(ledger));
    let (says, is_error) = match done {
        Ok(says) => (says, false),
        Err(says) => (says, true),
    };
    Ok(json!({"content": [{"type": "text", "text": says}], "isError": is_error}))
}

/// What a tool has done.
struct Done {
    says: String,
    /// The line of the ledger, if anything changed.
    entry: Option<String>,
}

impl Done {
    fn written_to(self, ledger: Option<&mut File>) -> Result<String, String> {
        if let (Some(entry), Some(ledger)) = (&self.entry, ledger) {
            writeln!(ledger, "{}", entry.escape_debug())
                .map_err(|error| format!("the ledger fails: {error}"))?;
        }
        Ok(self.says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: Value) -> Option<Value> {
        answer(&line, None)
    }

    #[test]
    fn it_does_what_it_is_asked_and_says_what_is_missing() {
        let call = |name: &str, arguments: Value| {
            let params = json!({"name": name, "arguments": arguments});
            ask(json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params})).unwrap()
        };
        let refund = call("send_refund", json!({"order": "A-1", "amount": 20}));
        assert_eq!(refund["result"]["content"][0]["text"], "Refunded $20.00 on order A-1.");
        assert_eq!(refund["id"], "a");
        for wrong in [json!({"order": "A-1"}), json!({"order": "A-1", "amount": "20"}), json!({"amount": 2})]
        {
            assert_eq!(call("send_refund", wrong)["result"]["isError"], true);
        }
        assert_eq!(call("fly", json!({}))["error"]["code"], INVALID_PARAMS);
    }

    #[test]
    fn it_speaks_enough_of_the_protocol() {
        let initialize = |version: &str| {
            ask(json!({"id": 0, "method": "initialize", "params": {"protocolVersion": version}})).unwrap()
        };
        assert_eq!(initialize("2024-11-05")["result"]["protocolVersion"], "2024-11-05");
        assert_eq!(initialize("1999-01-01")["result"]["protocolVersion"], PROTOCOL_VERSION);
        assert_eq!(ask(json!({"id": 1, "method": "ping"})).unwrap()["result"], json!({}));
        assert_eq!(
            ask(json!({"id": 1, "method": "server/discover"})).unwrap()["error"]["code"],
            METHOD_NOT_FOUND
        );
        assert_eq!(ask(json!({"method": "notifications/initialized"})), None);
        let tools = ask(json!({"id": 2, "method": "tools/list"})).unwrap();
        assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 3);
    }
}
