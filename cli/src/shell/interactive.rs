//! The shell at a terminal: a prompt that shows the director's state, completion, `?`,
//! history, pages.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext,
    EventHandler, Helper, KeyEvent, RepeatCount,
};

use super::complete::{self, Known};
use super::failure::Failure;
use super::matcher::Place;
use super::session::{Next, Session};
use super::terminal::{Keys, Pager, ends};
use super::{action::Show, help, tokens};
use crate::api::Table;

/// How many lines of history are kept.
const HISTORY_MAX: usize = 1000;

type Shared<'a> = Rc<RefCell<Session<'a>>>;
/// The line and the cursor's place in it when `?` was typed.
type Asked = Arc<Mutex<Option<(String, usize)>>>;

/// Reads and carries out lines until the user leaves. The exit status.
pub fn run(session: Session<'_>) -> u8 {
    // Ctrl-C ends what the user's pager shows, and not the shell under it. A handler, as
    // what is ignored would be ignored by the pager too.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default());
    let session = Rc::new(RefCell::new(session));
    let asked = Asked::default();
    let mut editor = match editor(&session, &asked) {
        Ok(editor) => editor,
        Err(error) => {
            eprintln!("lvx: the terminal cannot be used: {error}");
            return 1;
        }
    };
    let history = history();
    if let Some(path) = &history {
        let _ = editor.load_history(path);
    }
    println!(
        "lvx {} (`help`, TAB and `?` help)",
        env!("CARGO_PKG_VERSION")
    );
    let mut initial = (String::new(), String::new());
    let mut warned = false;
    loop {
        let prompt = prompt(&mut session.borrow_mut());
        let read = editor.readline_with_initial(&prompt, (&initial.0, &initial.1));
        initial = Default::default();
        let question = asked.lock().ok().and_then(|mut asked| asked.take());
        match read {
            Ok(_) if question.is_some() => {
                let (line, at) = question.unwrap_or_default();
                explain(&line[..at]);
                initial = (line[..at].to_owned(), line[at..].to_owned());
            }
            Ok(line) => {
                // Pasted lines come as one text. The first that fails ends it, as in scripts.
                for line in line.lines().filter(|line| !line.trim().is_empty()) {
                    let _ = editor.add_history_entry(line);
                    if let Some(path) = &history {
                        let _ = editor.append_history(path);
                    }
                    match carry_out(&session, line) {
                        Some(Next::Quit) if may_leave(&session, &mut warned) => return 0,
                        Some(_) => {}
                        None => break,
                    }
                }
            }
            // Ctrl-C gives the line up, as in every shell.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => {
                if may_leave(&session, &mut warned) {
                    return 0;
                }
            }
            Err(error) => {
                eprintln!("lvx: the terminal cannot be read: {error}");
                return 1;
            }
        }
    }
}

/// Changes that are not committed are lost: that is said once.
fn may_leave(session: &Shared<'_>, warned: &mut bool) -> bool {
    let session = session.borrow();
    let count = session.candidate.as_ref().map_or(0, |c| c.commands().len());
    if count == 0 || std::mem::replace(warned, true) {
        return true;
    }
    println!(
        "{count} changes are not committed; `commit` or `diff` them, or leave again to lose them"
    );
    false
}

/// Whether a person agrees to what cannot be taken back.
fn agrees(question: &str) -> bool {
    print!("{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdout()
        .flush()
        .and_then(|()| io::stdin().read_line(&mut answer));
    let answer = answer.trim().to_lowercase();
    read.is_ok() && matches!(answer.as_str(), "y" | "yes")
}

/// What comes next; none if the line failed or was not meant.
fn carry_out(session: &Shared<'_>, line: &str) -> Option<Next> {
    let question = session.borrow_mut().question(line);
    if question.is_some_and(|question| !agrees(&question)) {
        println!("nothing was changed");
        return None;
    }
    let ended = {
        let mut pager = Pager::new();
        let mut session = session.borrow_mut();
        let ended = session.line(line, &mut pager);
        let finished = pager.finish();
        ended.and_then(|next| finished.map(|()| next).map_err(Failure::from))
    };
    let ended = ended.and_then(|next| match next {
        Next::Watch {
            every_s,
            count,
            show,
        } => watch(&mut session.borrow_mut(), every_s, count, &show).map(|()| Next::Go),
        next => Ok(next),
    });
    match ended {
        Ok(next) => Some(next),
        // Enough was seen.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Some(Next::Go),
        Err(failure) => {
            println!("{}", failure.text(line));
            None
        }
    }
}

fn watch(
    session: &mut Session<'_>,
    every_s: u32,
    count: Option<u32>,
    show: &Show,
) -> Result<(), Failure> {
    let keys = Keys::new();
    let mut shown = 0;
    loop {
        let mut screen = Vec::new();
        session.show(show, &mut screen)?;
        let (rows, _) = super::terminal::size();
        let text = String::from_utf8_lossy(&screen);
        let mut out = io::stdout().lock();
        write!(out, "\x1b[H\x1b[J")?;
        let room = usize::from(rows.saturating_sub(2));
        for line in text.lines().take(room) {
            writeln!(out, "{line}")?;
        }
        write!(out, "(every {every_s} s; q ends)")?;
        out.flush()?;
        shown += 1;
        let enough = count.is_some_and(|count| shown >= count);
        if enough
            || keys
                .wait(Some(Duration::from_secs(every_s.into())))
                .is_some_and(ends)
        {
            writeln!(out)?;
            return Ok(());
        }
    }
}

/// What may come after `before`.
fn explain(before: &str) {
    let mut out = io::stdout().lock();
    let Ok(mut words) = tokens::split(before) else {
        return;
    };
    // A word under way narrows the choice down, but is not yet taken.
    let begun = match before.ends_with(char::is_whitespace) {
        true => None,
        false => words.pop(),
    };
    if words
        .first()
        .or(begun.as_ref())
        .is_some_and(|first| first.text.starts_with('-'))
    {
        let _ = writeln!(
            out,
            "  a line of ipvsadm; TAB completes it, `-h` lists its words"
        );
        return;
    }
    let _ = match Place::follow(&words) {
        Ok(place) => help::narrowed(
            &mut out,
            &place,
            begun.as_ref().map_or("", |t| t.text.as_str()),
        ),
        Err(fault) => writeln!(out, "{}", fault.text(before)),
    };
}

fn prompt(session: &mut Session<'_>) -> String {
    let state = match session.director.table() {
        Err(_) => "no director".to_owned(),
        Ok(table) => {
            let servers = || table.services.iter().flat_map(|row| &row.servers);
            let drained = servers().filter(|row| row.spec.weight == 0).count();
            let mut state = format!("{}/{}", table.services.len(), servers().count());
            if drained > 0 {
                state += &format!(" {drained} drained");
            }
            if let Ok(Some(waiting)) = session.director.waiting() {
                state += &format!(" confirm {} s", waiting.left_s);
            }
            state
        }
    };
    match &session.candidate {
        None => format!("lvx [{state}]> "),
        Some(candidate) => format!("lvx [{state}] edit *{}# ", candidate.commands().len()),
    }
}

fn editor<'a>(
    session: &Shared<'a>,
    asked: &Asked,
) -> rustyline::Result<Editor<Assistant<'a>, FileHistory>> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_MAX)?
        .auto_add_history(false)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Assistant(session.clone())));
    let question = EventHandler::Conditional(Box::new(Question(asked.clone())));
    editor.bind_sequence(Event::from(KeyEvent::from('?')), question);
    Ok(editor)
}

/// `$XDG_STATE_HOME/lvx/history`, made if it must be.
fn history() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty());
    let state = match named("XDG_STATE_HOME") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(named("HOME")?).join(".local/state"),
    };
    let directory = state.join("lvx");
    fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

/// `?` ends the line for a moment: its text is kept and comes back after the help.
struct Question(Asked);

impl ConditionalEventHandler for Question {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, line: &EventContext<'_>) -> Option<Cmd> {
        let quotes = line.line()[..line.pos()].matches(['"', '\'']).count();
        if quotes % 2 == 1 {
            return None;
        }
        *self.0.lock().ok()? = Some((line.line().to_owned(), line.pos()));
        Some(Cmd::AcceptLine)
    }
}

struct Assistant<'a>(Shared<'a>);

impl Helper for Assistant<'_> {}
impl Highlighter for Assistant<'_> {}
impl Validator for Assistant<'_> {}

impl Completer for Assistant<'_> {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = complete::complete(&line[..at], &mut *self.0.borrow_mut());
        let only = words.len() == 1;
        let pairs = words.into_iter().map(|word| Pair {
            replacement: if only {
                format!("{word} ")
            } else {
                word.clone()
            },
            display: word,
        });
        Ok((start, pairs.collect()))
    }
}

impl Hinter for Assistant<'_> {
    type Hint = String;

    /// The rest of a word that can be no other.
    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        if at < line.len() || line.ends_with(char::is_whitespace) {
            return None;
        }
        // The director is not asked at every key.
        let (start, words) = complete::complete(line, &mut Nothing);
        match &words[..] {
            [word] => Some(word[line.len() - start..].to_owned()).filter(|rest| !rest.is_empty()),
            _ => None,
        }
    }
}

struct Nothing;

impl Known for Nothing {
    fn table(&mut self) -> Option<Table> {
        None
    }
    fn tunables(&mut self) -> Vec<String> {
        Vec::new()
    }
}

impl Known for Session<'_> {
    fn table(&mut self) -> Option<Table> {
        Session::table(self).ok()
    }
    fn tunables(&mut self) -> Vec<String> {
        let tunables = self.director.tunables();
        tunables
            .map(|values| values.into_keys().collect())
            .unwrap_or_default()
    }
}
