//! A notification on the desktop of whoever runs the desk, by the system's own command: `notify-send` on Linux and the BSDs,
//! `osascript` on macOS.
//!
//! It says that something waits, in words that are ours but for the names, and has no button: what is to be decided is read
//! elsewhere. Nothing is interpreted by a shell.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use super::{NotSent, Telling, message::Message};

/// How long the command may take.
const COMMAND: Duration = Duration::from_secs(10);

/// The longest text, in characters.
const TEXT_CHARS_MAX: usize = 240;

/// The longest name that the system gives to a notification, in bytes.
const NAME_BYTES_MAX: usize = 20;

/// The desktop of this user.
#[derive(Debug)]
pub struct Desktop;

impl Desktop {
    pub(super) async fn tell(&self, telling: &Telling<'_>) -> Result<Option<String>, NotSent> {
        let message = Message::of(telling.hold, 0);
        let title = if message.waits { "A call waits for approval" } else { "A call does not wait any more" };
        let text: String = message.title.chars().take(TEXT_CHARS_MAX).collect();
        notify(title, &text, telling.message).await.map(Some)
    }

    pub(super) async fn test(&self) -> Result<(), NotSent> {
        notify("This is a test", "Calls that wait for approval will be told here.", None).await.map(drop)
    }
}

/// Shows a notification, in the place of an older one if there is one, and gives its name.
async fn notify(title: &str, text: &str, older: Option<&str>) -> Result<String, NotSent> {
    let mut command =
        if cfg!(target_os = "macos") { macos(title, text) } else { notify_send(title, text, older) };
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(COMMAND, output).await;
    let output = output.map_err(|_| NotSent::again("the command took too long"))?;
    let output = output.map_err(|error| NotSent::Never(format!("the command cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(NotSent::again(format!("the command failed: {}", output.status)));
    }
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let is_number = name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(if is_number { name } else { String::new() })
}

pub(super) fn notify_send(title: &str, text: &str, older: Option<&str>) -> Command {
    let mut command = Command::new("notify-send");
    command.args(["--app-name=Holdshort", "--urgency=normal", "--print-id"]);
    if let Some(older) = older.filter(|older| !older.is_empty()) {
        command.arg(format!("--replace-id={older}"));
    }
    // Bodies are read as markup (Desktop Notifications Specification, "Markup").
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    command.args(["--", title, &text]);
    command
}

fn macos(title: &str, text: &str) -> Command {
    let mut command = Command::new("osascript");
    // As arguments, so that nothing in them is a script.
    let script = [
        "on run argv",
        "display notification (item 2 of argv) with title \"Holdshort\" subtitle (item 1 of argv)",
        "end run",
    ];
    for line in script {
        command.args(["-e", line]);
    }
    command.args([title, text]);
    command
}
