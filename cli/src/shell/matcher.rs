//! Follows a line through the grammar, word by word. At each place it knows all that may
//! come next; parsing, completion and help differ only in what they do with that.

use super::fault::{Fault, nearest};
use super::grammar::{GRAMMAR, Node, Value, Word};
use super::tokens::Token;

/// What may stand at one place.
#[derive(Clone, Copy, Debug)]
pub enum Terminal {
    /// A fixed word.
    Word(&'static Word),
    /// A word of the user's.
    Value(&'static Value),
}

impl Terminal {
    /// The word, or the value's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Word(word) => word.name,
            Self::Value(value) => value.name,
        }
    }

    /// A few words of help.
    pub fn help(self) -> &'static str {
        match self {
            Self::Word(word) => word.help,
            Self::Value(value) => value.help,
        }
    }

    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Word(a), Self::Word(b)) => a.name == b.name,
            (Self::Value(a), Self::Value(b)) => a.kind == b.kind,
            _ => false,
        }
    }
}

/// A word of the line and what it was taken for.
#[derive(Clone, Debug)]
pub struct Got {
    /// What it was taken for.
    pub terminal: Terminal,
    /// As typed.
    pub token: Token,
}

/// What is still to come on one way through the grammar, the next part last.
type Way = Vec<Frame>;

#[derive(Clone, Copy, Debug)]
enum Frame {
    Node(&'static Node),
    /// Options, and a bit for each that was given.
    Options(&'static [Node], u32),
}

/// All ways that fit the words so far.
#[derive(Clone, Debug)]
pub struct Place {
    ways: Vec<Way>,
    /// The words so far.
    pub gotten: Vec<Got>,
}

/// What may come at a place.
#[derive(Debug, Default)]
pub struct Expected {
    choices: Vec<(Terminal, Way)>,
    /// Whether the line may end here.
    pub may_end: bool,
}

impl Place {
    /// The beginning of a line.
    pub fn start() -> Self {
        Self {
            ways: vec![vec![Frame::Node(&GRAMMAR)]],
            gotten: Vec::new(),
        }
    }

    /// Follows `tokens`.
    pub fn follow(tokens: &[Token]) -> Result<Self, Fault> {
        match Self::follow_far(tokens) {
            (place, None) => Ok(place),
            (_, Some(fault)) => Err(fault),
        }
    }

    /// Follows `tokens` as far as they fit, and says why not further.
    pub fn follow_far(tokens: &[Token]) -> (Self, Option<Fault>) {
        let mut place = Self::start();
        for token in tokens {
            match place.take(token) {
                Ok(next) => place = next,
                Err(fault) => return (place, Some(fault)),
            }
        }
        (place, None)
    }

    /// What may come next.
    pub fn expected(&self) -> Expected {
        let mut expected = Expected::default();
        for way in &self.ways {
            expected.expand(way.clone());
        }
        expected
    }

    fn take(&self, token: &Token) -> Result<Self, Fault> {
        let expected = self.expected();
        let terminal = expected.choose(token)?;
        let fitting = |(other, way): (Terminal, Way)| terminal.is(other).then_some(way);
        let mut gotten = self.gotten.clone();
        gotten.push(Got {
            terminal,
            token: token.clone(),
        });
        Ok(Self {
            ways: expected.choices.into_iter().filter_map(fitting).collect(),
            gotten,
        })
    }
}

impl Expected {
    /// Each word and value that may come, in the grammar's order.
    pub fn terminals(&self) -> Vec<Terminal> {
        let mut distinct: Vec<Terminal> = Vec::new();
        for (terminal, _) in &self.choices {
            if !distinct.iter().any(|known| known.is(*terminal)) {
                distinct.push(*terminal);
            }
        }
        distinct
    }

    /// The fixed words that may come.
    pub fn words(&self) -> Vec<&'static str> {
        let words = self.terminals().into_iter().filter_map(|t| match t {
            Terminal::Word(word) => Some(word.name),
            Terminal::Value(_) => None,
        });
        words.collect()
    }

    /// What is missing at the end of a line.
    pub fn missing(&self) -> String {
        format!("the line ends too early: expected {}", self.list())
    }

    fn list(&self) -> String {
        let names: Vec<_> = self.terminals().iter().map(|t| t.name()).collect();
        match names.split_last() {
            None => "nothing more".to_owned(),
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
        }
    }

    fn expand(&mut self, mut way: Way) {
        let Some(frame) = way.pop() else {
            self.may_end = true;
            return;
        };
        match frame {
            Frame::Node(Node::Word(word)) => self.choices.push((Terminal::Word(word), way)),
            Frame::Node(Node::Value(value)) => self.choices.push((Terminal::Value(value), way)),
            Frame::Node(Node::Seq(nodes)) => {
                way.extend(nodes.iter().rev().map(Frame::Node));
                self.expand(way);
            }
            Frame::Node(Node::Any(nodes)) => {
                for node in *nodes {
                    self.expand(with(&way, [Frame::Node(node)]));
                }
            }
            Frame::Node(Node::Maybe(node)) => {
                self.expand(with(&way, [Frame::Node(node)]));
                self.expand(way);
            }
            Frame::Node(Node::Options(nodes)) => {
                self.expand(with(&way, [Frame::Options(nodes, 0)]))
            }
            Frame::Options(nodes, given) => {
                for (number, node) in nodes.iter().enumerate() {
                    let bit = 1 << number;
                    if given & bit == 0 {
                        let after = Frame::Options(nodes, given | bit);
                        self.expand(with(&way, [after, Frame::Node(node)]));
                    }
                }
                self.expand(way);
            }
        }
    }

    /// A fixed word in full comes first, then the only one that begins so, then a value.
    fn choose(&self, token: &Token) -> Result<Terminal, Fault> {
        let typed = token.text.as_str();
        let terminals = self.terminals();
        let word = |t: &&Terminal| matches!(t, Terminal::Word(_));
        if let Some(exact) = terminals.iter().filter(word).find(|t| t.name() == typed) {
            return Ok(*exact);
        }
        let begin: Vec<_> = terminals
            .iter()
            .filter(word)
            .filter(|t| !typed.is_empty() && t.name().starts_with(typed))
            .collect();
        match begin[..] {
            [one] => return Ok(*one),
            [] => {}
            _ => {
                let names: Vec<_> = begin.iter().map(|t| t.name()).collect();
                let message = format!("`{typed}` could be {}", names.join(", "));
                return Err(Fault::at(token.span.clone(), message));
            }
        }
        match terminals.iter().find(|t| matches!(t, Terminal::Value(_))) {
            Some(value) => Ok(*value),
            None => Err(Fault::at(token.span.clone(), self.unknown(typed))),
        }
    }

    fn unknown(&self, typed: &str) -> String {
        if self.choices.is_empty() {
            return format!("nothing more is expected, but `{typed}` is here");
        }
        match nearest(typed, self.words()) {
            Some(word) => format!("`{typed}` is not known here; did you mean `{word}`?"),
            None => format!("`{typed}` is not known here; expected {}", self.list()),
        }
    }
}

fn with<const N: usize>(way: &Way, frames: [Frame; N]) -> Way {
    let mut longer = way.clone();
    longer.extend(frames);
    longer
}
