//! Chromium by remote control; see `driver.mjs`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// How long the page may take for what it is waited for.
const PATIENCE_MS: u64 = 20_000;

pub(crate) struct Browser {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    /// A browser with an empty page of this size.
    pub(crate) fn open(width: u32, height: u32) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(
            root.join("ui/node_modules/playwright-core").is_dir(),
            "the page's npm packages are missing: run `make ui`"
        );
        let mut child = Command::new("node")
            .arg(root.join("tests/browser/driver.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node can be started (`make test` installs it)");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut browser = Self { child, orders, answers };
        browser.resize(width, height);
        browser
    }

    /// A new empty page of this size in place of the old one.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        self.order(&json!({"order": "open", "width": width, "height": height}));
    }

    pub(crate) fn goto(&mut self, url: &str) {
        self.order(&json!({"order": "goto", "url": url}));
    }

    /// The value of a JavaScript expression, a promise's once it is there.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        self.order(&json!({"order": "eval", "expression": expression}))
    }

    /// Waits until the expression is true; panics if it stays false.
    pub(crate) fn wait(&mut self, expression: &str) -> Value {
        self.wait_at_most(PATIENCE_MS, expression)
    }

    pub(crate) fn wait_at_most(&mut self, ms: u64, expression: &str) -> Value {
        self.order(&json!({"order": "wait", "expression": expression, "ms": ms}))
    }

    /// Waits until the element that `selector` finds has `text` in it.
    pub(crate) fn wait_for_text(&mut self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait(&format!("document.querySelector({selector})?.textContent.includes({text})"));
    }

    pub(crate) fn text(&mut self, selector: &str) -> String {
        let selector = json!(selector);
        let text = self.eval(&format!("document.querySelector({selector})?.textContent ?? ''"));
        text.as_str().expect("textContent is a string").trim().to_owned()
    }

    pub(crate) fn press(&mut self, key: &str) {
        self.order(&json!({"order": "press", "key": key}));
    }

    /// Types as fast as a barcode scanner.
    pub(crate) fn scan(&mut self, text: &str) {
        self.order(&json!({"order": "scan", "text": text}));
    }

    pub(crate) fn click(&mut self, selector: &str) {
        self.order(&json!({"order": "click", "selector": selector}));
    }

    pub(crate) fn tap(&mut self, x: f64, y: f64) {
        self.order(&json!({"order": "tap", "x": x, "y": y}));
    }

    pub(crate) fn wheel(&mut self, x: f64, y: f64, by: f64) {
        self.order(&json!({"order": "wheel", "x": x, "y": y, "by": by}));
    }

    pub(crate) fn drag(&mut self, from: [f64; 2], to: [f64; 2]) {
        self.order(&json!({"order": "drag", "from": from, "to": to}));
    }

    /// What must not happen and did, since this was last asked.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        let problems = self.order(&json!({"order": "problems"}));
        serde_json::from_value(problems).expect("problems are strings")
    }

    /// Names of the files that the page has saved since this was last asked.
    pub(crate) fn downloads(&mut self) -> Vec<String> {
        let downloads = self.order(&json!({"order": "downloads"}));
        serde_json::from_value(downloads).expect("names are strings")
    }

    /// A picture of the page, where `RETICLE_SCREENSHOTS` names a folder for them.
    pub(crate) fn shot(&mut self, name: &str) {
        if let Some(folder) = std::env::var_os("RETICLE_SCREENSHOTS") {
            let path = Path::new(&folder).join(format!("{name}.png"));
            self.order(&json!({"order": "shot", "path": path}));
        }
    }

    fn order(&mut self, order: &Value) -> Value {
        let orders = self.orders.as_mut().expect("only closed when dropped");
        writeln!(orders, "{order}").expect("the driver listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the driver answers");
        let mut answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the driver ended on {order}; is chromium installed?"));
        if let Some(error) = answer.get("error") {
            panic!("{order}: {error}");
        }
        answer["ok"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its orders the driver closes the browser and ends.
        self.orders = None;
        drop(self.child.wait());
    }
}
