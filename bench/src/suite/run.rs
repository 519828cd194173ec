//! Runs the steps, one process each, and keeps the figures after every one: a run that is
//! interrupted can be resumed with the parts that are missing.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::machine::{self, Machine};
use super::plan::{Part, Step, steps};
use super::{Figures, PipelineRow};
use crate::wire::Stop;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The parts.
    pub parts: Vec<Part>,
    /// Shorter, rougher.
    pub quick: bool,
    /// The figures' file. What it holds of other parts stays.
    pub json: PathBuf,
    /// lvx's own binary and version.
    pub lvx: PathBuf,
    /// See `lvx`.
    pub version: String,
    /// The core that works in memory.
    pub core: usize,
}

/// Runs all parts asked for. A step that fails is said and left out.
///
/// # Errors
/// Where the figures cannot be kept, nothing could be measured, or on being told to stop.
pub fn run(options: &Options, stop: Stop<'_>) -> Result<Figures, String> {
    let mut figures = load(&options.json)?;
    figures.machine = Machine::this(&options.version);
    figures.quick = options.quick;
    let steps = steps(
        &options.parts,
        options.quick,
        options.core,
        figures.machine.cores,
    );
    for part in &options.parts {
        figures.forget(*part);
    }
    let mut bar = Bar::new(&steps);
    let mut failed = 0;
    for step in &steps {
        bar.begin(step);
        match one(&options.lvx, step, stop, &mut bar) {
            Ok(value) => {
                figures.keep(step, value)?;
                save(&figures, &options.json)?;
            }
            Err(problem) => {
                stop.check()?;
                bar.say(&format!("{}: {problem}", step.words.join(" ")));
                failed += 1;
            }
        }
        bar.end(step);
    }
    bar.close();
    match failed == steps.len() {
        true => Err("nothing could be measured".to_owned()),
        false => Ok(figures),
    }
}

/// The figures that a file holds; none where there is no file.
pub fn load(path: &Path) -> Result<Figures, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| format!("{}: {error}: remove it to begin anew", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Figures::default()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn save(figures: &Figures, path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = serde_json::to_string_pretty(figures).map_err(|error| error.to_string())?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, text + "\n").map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)
}

impl Figures {
    fn forget(&mut self, part: Part) {
        self.commands.remove(part.name());
        self.taken.remove(part.name());
        match part {
            Part::Pipeline => self.pipeline.clear(),
            Part::Connections => self.connections = None,
            Part::Wire => self.wire = None,
            Part::Beside => self.beside = None,
            Part::Exchange => self.exchange = None,
            Part::Scaling => self.scaling = None,
            Part::Change => self.change = None,
        }
    }

    fn keep(&mut self, step: &Step, value: Value) -> Result<(), String> {
        let wrong = |error: serde_json::Error| format!("{}: {error}", step.words.join(" "));
        match step.part {
            Part::Pipeline => self.keep_row(step, &value)?,
            Part::Connections => {
                self.connections = Some(serde_json::from_value(value).map_err(wrong)?);
            }
            Part::Wire => self.wire = Some(serde_json::from_value(value).map_err(wrong)?),
            Part::Beside => self.beside = Some(serde_json::from_value(value).map_err(wrong)?),
            Part::Exchange => self.exchange = Some(serde_json::from_value(value).map_err(wrong)?),
            Part::Scaling => self.scaling = Some(serde_json::from_value(value).map_err(wrong)?),
            Part::Change => self.change = Some(serde_json::from_value(value).map_err(wrong)?),
        }
        let name = step.part.name().to_owned();
        let command = format!("lvx bench {}", step.words.join(" "));
        let commands = self.commands.entry(name.clone()).or_default();
        if !commands.contains(&command) {
            commands.push(command);
        }
        self.taken.insert(name, machine::now());
        Ok(())
    }

    fn keep_row(&mut self, step: &Step, value: &Value) -> Result<(), String> {
        let wrong = |error: serde_json::Error| format!("{}: {error}", step.words.join(" "));
        let place = self.pipeline.iter().position(|row| row.name == step.name);
        let place = place.unwrap_or_else(|| {
            self.pipeline.push(PipelineRow {
                name: step.name.clone(),
                method: value["method"].as_str().unwrap_or_default().to_owned(),
                connections: value["connections"].as_u64().unwrap_or(0),
                ..PipelineRow::default()
            });
            self.pipeline.len() - 1
        });
        let row = &mut self.pipeline[place];
        let counted = serde_json::from_value(value["counted"].clone()).map_err(wrong)?;
        row.counted = Option::or(counted, row.counted);
        // A run that is there for its instructions has too few packets for a time.
        if !step.words.iter().any(|word| word == "--instructions") {
            let median = value["median_ns"].as_f64();
            row.ns.push(median.ok_or("pipeline gave no median")?);
        }
        Ok(())
    }
}

/// Runs one step to its end; what it printed.
fn one(lvx: &Path, step: &Step, stop: Stop<'_>, bar: &mut Bar) -> Result<Value, String> {
    let mut child = Command::new(lvx)
        .arg("bench")
        .args(&step.words)
        .env("LVX_BENCH_PROGRESS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", lvx.display()))?;
    let mut output = child.stdout.take().expect("it is piped");
    let errors = child.stderr.take().expect("it is piped");
    let (lines, said) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = output.read_to_string(&mut text);
        text
    });
    let listener = thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut last = String::new();
    let status = loop {
        while let Ok(line) = said.try_recv() {
            match progress(&line) {
                Some((share, what)) => bar.within(step, share, what),
                None => last = line,
            }
        }
        if let Some(status) = wait(&mut child, stop)? {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let text = reader.join().unwrap_or_default();
    let _ = listener.join();
    for line in said.try_iter().filter(|line| progress(line).is_none()) {
        last = line;
    }
    if !status.success() {
        return Err(if last.is_empty() {
            status.to_string()
        } else {
            last
        });
    }
    serde_json::from_str(&text).map_err(|error| format!("it printed no JSON: {error}"))
}

/// How a process ended, if it has. Told to stop, it is asked to end, and waited for: it
/// has to clean up.
fn wait(child: &mut Child, stop: Stop<'_>) -> Result<Option<ExitStatus>, String> {
    let ended = child.try_wait().map_err(|error| error.to_string())?;
    if ended.is_none()
        && let Err(interrupted) = stop.check()
    {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        let _ = child.wait();
        return Err(interrupted);
    }
    Ok(ended)
}

/// A line that tells how far a step is: `progress 0.25 what`.
pub fn progress(line: &str) -> Option<(f64, &str)> {
    let (share, what) = line.strip_prefix("progress ")?.split_once(' ')?;
    Some((share.parse().ok()?, what))
}

/// Where the run is, on standard error: one line that changes where that is a terminal, a
/// line for each step where it is not.
struct Bar {
    start: Instant,
    is_terminal: bool,
    all_s: f64,
    done_s: f64,
    shown: String,
}

impl Bar {
    fn new(steps: &[Step]) -> Self {
        Self {
            start: Instant::now(),
            is_terminal: stderr().is_terminal(),
            all_s: steps.iter().map(|step| f64::from(step.seconds)).sum(),
            done_s: 0.0,
            shown: String::new(),
        }
    }

    fn begin(&mut self, step: &Step) {
        self.within(step, 0.0, &step.name);
    }

    fn within(&mut self, step: &Step, share: f64, what: &str) {
        let part = step.part.name();
        let done = (self.done_s + share * f64::from(step.seconds)) / self.all_s.max(1.0);
        let text = format!("{part} {what}");
        if self.is_terminal {
            let filled = (done * 30.0) as usize;
            let elapsed = self.start.elapsed().as_secs();
            eprint!(
                "\r\x1b[K[{}{}] {:3.0} % {:2}:{:02}  {text:.40}",
                "#".repeat(filled),
                ".".repeat(30 - filled.min(30)),
                done * 100.0,
                elapsed / 60,
                elapsed % 60
            );
            let _ = stderr().flush();
        } else if share == 0.0 && text != self.shown {
            eprintln!("{:3.0} %  {text}", done * 100.0);
            self.shown = text;
        }
    }

    fn end(&mut self, step: &Step) {
        self.done_s += f64::from(step.seconds);
    }

    fn say(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{text}");
    }

    fn close(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pipeline_step(words: &str) -> Step {
        Step {
            part: Part::Pipeline,
            name: "IP in IP".to_owned(),
            words: words.split(' ').map(str::to_owned).collect(),
            seconds: 1,
        }
    }

    #[test]
    fn rounds_of_a_row_come_together_and_instructions_beside_them() {
        let mut figures = Figures::default();
        let value =
            |ns: f64| json!({"method": "ipip", "connections": 7, "median_ns": ns, "counted": null});
        for ns in [30.0, 10.0, 20.0] {
            figures
                .keep(&pipeline_step("pipeline --json"), value(ns))
                .unwrap();
        }
        let mut counted = value(999.0);
        counted["counted"] = json!({"instructions": 250.0, "cache_misses": 0.5, "simulated": true});
        figures
            .keep(&pipeline_step("pipeline --instructions --json"), counted)
            .unwrap();
        let row = figures.row("IP in IP").unwrap();
        assert_eq!((row.ns.len(), row.ns.median()), (3, 20.0));
        assert_eq!(row.counted.unwrap().instructions, 250.0);
        assert_eq!(figures.commands["pipeline"].len(), 2, "each command once");
        figures.forget(Part::Pipeline);
        assert!(figures.pipeline.is_empty() && figures.commands.is_empty());
    }

    #[test]
    fn figures_are_read_as_they_were_written() {
        let path = std::env::temp_dir().join(format!("lvx-figures-{}.json", std::process::id()));
        let mut figures = Figures::default();
        let value = json!({"method": "ipip", "connections": 7, "median_ns": 5.0, "counted": null});
        figures
            .keep(&pipeline_step("pipeline --json"), value)
            .unwrap();
        save(&figures, &path).unwrap();
        let read = load(&path).unwrap();
        assert_eq!(read.row("IP in IP").unwrap().ns.median(), 5.0);
        fs::write(&path, "{").unwrap();
        assert!(load(&path).unwrap_err().contains("begin anew"));
        fs::remove_file(&path).unwrap();
        assert!(load(&path).unwrap().pipeline.is_empty());
    }

    #[test]
    fn progress_is_told_from_other_lines() {
        assert_eq!(
            progress("progress 0.25 lvx, 64 B"),
            Some((0.25, "lvx, 64 B"))
        );
        assert_eq!(progress("lvx: no such device"), None);
        assert_eq!(progress("progress soon maybe"), None);
    }
}
