//! Arguments as typed: splits words into options and values exactly as popt 1.19 does,
//! which is what ipvsadm reads its arguments with. Knows the words, not their meaning.

use super::words::{self, Argument, Meaning, Word};

/// One option as typed.
#[derive(Clone, Copy, Debug)]
pub struct Typed<'a> {
    /// What it stands for.
    pub meaning: Meaning,
    /// Its value, where it takes one.
    pub value: Option<&'a str>,
}

/// Why splitting stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A name that no word has.
    UnknownOption,
    /// The value is missing.
    MissingArgument,
    /// A value for a word that takes none.
    UnwantedArgument,
}

impl Unreadable {
    /// popt's text for it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnknownOption => "unknown option",
            Self::MissingArgument => "missing argument",
            Self::UnwantedArgument => "option does not take an argument",
        }
    }
}

/// Splits arguments, one option at a time: ipvsadm judges each option before it looks at
/// the next, so the first thing wrong on a line is the one that it reports.
#[derive(Debug)]
pub struct Splitter<'a> {
    words: &'a [String],
    next: usize,
    bundle: &'a str,
    options_ended: bool,
    rest: Vec<&'a str>,
}

impl<'a> Splitter<'a> {
    /// Splits `words` (without the program's name).
    pub fn new(words: &'a [String]) -> Self {
        Self {
            words,
            next: 0,
            bundle: "",
            options_ended: false,
            rest: Vec::new(),
        }
    }

    /// The next option; none at the end.
    pub fn next_option(&mut self) -> Result<Option<Typed<'a>>, Unreadable> {
        loop {
            if !self.bundle.is_empty() {
                return self.letter().map(Some);
            }
            let Some(word) = self.take_word() else {
                return Ok(None);
            };
            if self.options_ended || !word.starts_with('-') || word == "-" {
                self.rest.push(word);
            } else if word == "--" {
                self.options_ended = true;
            } else if let Some(name) = word.strip_prefix("--") {
                return self.long(name).map(Some);
            } else {
                self.bundle = &word[1..];
            }
        }
    }

    /// The word taken last: the one that messages name.
    pub fn last_word(&self) -> &'a str {
        match self.next {
            0 => "",
            next => &self.words[next - 1],
        }
    }

    /// The words that are no options, once [`Self::next_option`] has come to its end.
    pub fn into_rest(self) -> Vec<&'a str> {
        self.rest
    }

    fn take_word(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn long(&mut self, typed: &'a str) -> Result<Typed<'a>, Unreadable> {
        let (name, value) = match typed.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (typed, None),
        };
        let word = words::long(name).ok_or(Unreadable::UnknownOption)?;
        self.complete(word, value)
    }

    fn letter(&mut self) -> Result<Typed<'a>, Unreadable> {
        let letter = self.bundle.chars().next().unwrap_or_default();
        let after = &self.bundle[letter.len_utf8()..];
        let word = words::short(letter).ok_or(Unreadable::UnknownOption)?;
        if word.argument == Argument::None {
            self.bundle = after;
            let value = after.strip_prefix('=');
            return self.complete(word, value);
        }
        self.bundle = "";
        let value = (!after.is_empty()).then(|| after.strip_prefix('=').unwrap_or(after));
        self.complete(word, value)
    }

    fn complete(
        &mut self,
        word: &'static Word,
        attached: Option<&'a str>,
    ) -> Result<Typed<'a>, Unreadable> {
        let value = match (word.argument, attached) {
            (Argument::None, Some(_)) => return Err(Unreadable::UnwantedArgument),
            (Argument::None, None) => None,
            (_, Some(value)) => Some(value),
            (Argument::Required(_), None) => {
                Some(self.take_word().ok_or(Unreadable::MissingArgument)?)
            }
            (Argument::Optional(_), None) => self.take_value(),
        };
        Ok(Typed {
            meaning: word.meaning,
            value,
        })
    }

    fn take_value(&mut self) -> Option<&'a str> {
        let next = self.words.get(self.next)?;
        if next.starts_with('-') {
            return None;
        }
        self.take_word()
    }
}
