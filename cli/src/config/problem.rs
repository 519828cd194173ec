//! What is wrong with a file and where, shown with the lines around.

use std::fmt;
use std::ops::Range;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde_json::{Value, json};

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The bytes that are wrong.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// What stands there already, for what stands twice.
    pub first: Option<Range<usize>>,
}

impl Problem {
    /// A problem at `span`.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: None,
            first: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// All problems of a file.
#[derive(Clone, Debug)]
pub struct Problems {
    name: String,
    text: String,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(name: &str, text: &str, list: Vec<Problem>) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            list,
        }
    }

    /// Each of them.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// For people: each with its lines, marks and advice.
    pub fn picture(&self, colour: bool) -> String {
        let theme = match colour {
            true => GraphicalTheme::unicode(),
            false => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
        let mut text = String::new();
        for problem in &self.list {
            let shown = Shown {
                problem,
                source: NamedSource::new(&self.name, self.text.clone()),
            };
            // Writing into a string does not fail.
            let _ = handler.render_report(&mut text, &shown);
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let problem = |problem: &Problem| {
            let (line, column) = self.place(&problem.span);
            json!({
                "file": self.name, "line": line, "column": column,
                "message": problem.message, "help": problem.help,
            })
        };
        self.list.iter().map(problem).collect()
    }

    /// Line and column, in characters, both from 1.
    fn place(&self, span: &Range<usize>) -> (usize, usize) {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// One line each, `FILE:LINE:COLUMN: what`, as compilers write them.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.list.iter().enumerate() {
            let (line, column) = self.place(&problem.span);
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{line}:{column}: {}", self.name, problem.message)?;
            if let Some(help) = &problem.help {
                write!(f, " ({help})")?;
            }
            if let Some(first) = &problem.first {
                write!(f, " (the first one is on line {})", self.place(first).0)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A problem as miette draws it.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::underline(self.problem.span.clone());
        let first = self.problem.first.clone();
        let first = first.map(|span| LabeledSpan::at(span, "the first one"));
        Some(Box::new(std::iter::once(label).chain(first)))
    }
}
