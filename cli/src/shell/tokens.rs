//! A line as words with their places, so that a fault can point at one. Quotes keep blanks
//! within a word (`set sync_threshold "3 50"`); a word that begins with `#` ends the line.

use std::ops::Range;

use super::fault::Fault;

/// One word as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, without its quotes.
    pub text: String,
    /// Its bytes within the line.
    pub span: Range<usize>,
}

/// Splits `line`.
pub fn split(line: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let mut rest = line.char_indices().peekable();
    while let Some(&(start, first)) = rest.peek() {
        if first.is_whitespace() {
            rest.next();
            continue;
        }
        if first == '#' {
            break;
        }
        let mut text = String::new();
        let mut quote = None;
        let mut end = start;
        while let Some(&(at, letter)) = rest.peek() {
            match quote {
                None if letter.is_whitespace() => break,
                None if letter == '"' || letter == '\'' => quote = Some(letter),
                Some(open) if letter == open => quote = None,
                _ => text.push(letter),
            }
            end = at + letter.len_utf8();
            rest.next();
        }
        let span = start..end;
        if quote.is_some() {
            return Err(Fault::at(span, "the quote is not closed"));
        }
        tokens.push(Token { text, span });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        type Words = &'static [(&'static str, Range<usize>)];
        let rows: [(&str, Words); 6] = [
            ("", &[]),
            ("  show  servers ", &[("show", 2..6), ("servers", 8..15)]),
            (
                "set x \"3 50\"",
                &[("set", 0..3), ("x", 4..5), ("3 50", 6..12)],
            ),
            ("a''b", &[("ab", 0..4)]),
            ("show # all of it", &[("show", 0..4)]),
            ("ä b", &[("ä", 0..2), ("b", 3..4)]),
        ];
        for (line, expected) in rows {
            let tokens = split(line).unwrap();
            let found: Vec<_> = tokens
                .iter()
                .map(|t| (t.text.as_str(), t.span.clone()))
                .collect();
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(split("a \"b").unwrap_err().span, Some(2..4));
    }
}
