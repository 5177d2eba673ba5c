//! The few files that pages need besides themselves. They are in the program, and named after what is in them.
//!
//! Used by `guard` (the route) and by the templates (the names). Nothing is ever fetched from elsewhere.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::digest::Digest;

/// Characters of the digest in a name.
const NAME_DIGITS: usize = 16;

/// A file's name never means another file: browsers may keep it for good.
const KEEP: &str = "public, max-age=31536000, immutable";

/// The files, with where they are found.
#[derive(Debug)]
pub(super) struct Assets {
    /// The style sheet's path.
    pub(super) css: String,
    /// The script's path.
    pub(super) js: String,
    /// The icon's path.
    pub(super) icon: String,
}

const CSS: &str = include_str!("assets/desk.css");
const JS: &str = include_str!("assets/desk.js");
const ICON: &str = include_str!("assets/icon.svg");

static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    css: path("desk", "css", CSS),
    js: path("desk", "js", JS),
    icon: path("icon", "svg", ICON),
});

fn path(stem: &str, extension: &str, text: &str) -> String {
    let digest = Digest::of(text.as_bytes()).to_string();
    format!("/assets/{stem}-{}.{extension}", &digest[..NAME_DIGITS])
}

/// Where the files are found.
pub(super) fn assets() -> &'static Assets {
    &ASSETS
}

/// The file of this name.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let assets = assets();
    let path = format!("/assets/{name}");
    let (content_type, text) = if path == assets.css {
        ("text/css; charset=utf-8", CSS)
    } else if path == assets.js {
        ("text/javascript; charset=utf-8", JS)
    } else if path == assets.icon {
        ("image/svg+xml", ICON)
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, KEEP)], text).into_response()
}
