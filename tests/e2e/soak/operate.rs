//! An operator who cannot leave things alone: services come and go, transactions, limits, prefixes, marks, tunables. The
//! services whose connections count only have their weights and schedulers changed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::traffic::{DATAGRAMS, DOWNLOADS, FAMILIES, METHODS, REQUESTS};
use super::{Scene, output_text};
use crate::lab::{Family, endpoint, text};
use crate::raw::Random;

/// Ports of the services that come and go.
pub const OTHERS: std::ops::Range<u16> = 10_000..10_016;
/// The service of a commit that nobody confirms.
const UNCONFIRMED: u16 = 10_100;
const SCHEDULERS: [&str; 10] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "mh", "sed",
];
/// How long a director may be away.
const PATIENCE: Duration = Duration::from_secs(15);

type Servers = BTreeMap<String, &'static str>;

/// What there should be, as far as this operator made it.
struct Desk<'s> {
    scene: &'s Scene,
    random: Random,
    services: BTreeMap<String, Servers>,
    limited: BTreeSet<String>,
    marks: BTreeSet<u32>,
    prefixes: BTreeSet<String>,
}

pub fn edit(scene: &Scene) {
    let mut desk = Desk {
        scene,
        random: scene.random(2),
        services: BTreeMap::new(),
        limited: BTreeSet::new(),
        marks: BTreeSet::new(),
        prefixes: BTreeSet::new(),
    };
    while !scene.is_over() {
        {
            let _editing = scene.editing.lock().expect("no panic");
            desk.edit();
        }
        thread::sleep(desk.random.time_ms(10, 200));
    }
    desk.tidy();
}

impl Desk<'_> {
    fn edit(&mut self) {
        match self.random.below(16) {
            0..3 => self.add_service(),
            3 => self.delete_service(),
            4 | 5 => self.add_server(),
            6 => self.delete_server(),
            7 => self.edit_server(),
            8 => self.limit(),
            9 => self.prefix(),
            10 => self.mark(),
            11 => self.transaction(),
            12 if self.random.one_in(4) => self.unconfirmed(),
            13 => self.tunable(),
            14 => self.look(),
            _ => self.weigh(),
        }
    }

    fn add_service(&mut self) {
        let family = *self.random.of(&FAMILIES);
        let port = OTHERS.start + self.random.below(OTHERS.len() as u64) as u16;
        let service = family.service(port);
        let scheduler = self.random.of(&SCHEDULERS);
        if self.services.contains_key(&service) {
            self.ipvsadm(&format!("-E -t {service} -s {scheduler}"));
        } else {
            let persistent = ["", " -p 60"][self.random.below(2) as usize];
            self.ipvsadm(&format!("-A -t {service} -s {scheduler}{persistent}"));
            self.services.insert(service, Servers::new());
            self.add_server();
        }
    }

    fn delete_service(&mut self) {
        let Some(service) = self.a_service() else {
            return;
        };
        self.services.remove(&service);
        self.limited.remove(&service);
        self.ipvsadm(&format!("-D -t {service}"));
    }

    fn add_server(&mut self) {
        let Some(service) = self.a_service() else {
            return;
        };
        let number = 11 + self.random.below(40);
        let address = match service.starts_with('[') {
            true => format!("fd02::{number}"),
            false => format!("10.2.0.{number}"),
        };
        let method = self.random.of(&METHODS).flag();
        // Only masquerading maps ports.
        let port = service.rsplit(':').next().expect("a port");
        let server = endpoint(&address, port.parse().expect("a number"));
        let weight = self.random.below(10);
        let servers = self.services.get_mut(&service).expect("chosen from it");
        let verb = match servers.insert(server.clone(), method) {
            None => "-a",
            Some(_) => "-e",
        };
        self.ipvsadm(&format!(
            "{verb} -t {service} -r {server} {method} -w {weight}"
        ));
    }

    fn delete_server(&mut self) {
        let Some((service, server, _)) = self.a_server() else {
            return;
        };
        self.ipvsadm(&format!("-d -t {service} -r {server}"));
        self.services
            .get_mut(&service)
            .expect("chosen from it")
            .remove(&server);
    }

    fn edit_server(&mut self) {
        let Some((service, server, method)) = self.a_server() else {
            return;
        };
        let (weight, upper) = (self.random.below(100), self.random.below(2) * 100);
        self.ipvsadm(&format!(
            "-e -t {service} -r {server} {method} -w {weight} -x {upper}"
        ));
    }

    fn limit(&mut self) {
        let Some(service) = self.a_service() else {
            return;
        };
        if self.limited.remove(&service) {
            return self.lvx(&["limit", "del", "-t", &service]);
        }
        let per_s = (1 + self.random.below(1000)).to_string();
        self.lvx(&["limit", "set", "-t", &service, "--per-s", &per_s]);
        self.limited.insert(service);
    }

    /// Of networks that no client of the soak is in.
    fn prefix(&mut self) {
        if self.prefixes.len() > 50 {
            self.prefixes.clear();
            return self.lvx(&["prefix", "forget", "--all"]);
        }
        let network = match self.random.one_in(2) {
            true => format!(
                "203.0.{}.{}/32",
                self.random.below(256),
                self.random.below(256)
            ),
            false => format!("2001:db8:{:x}::/48", self.random.below(65_536)),
        };
        let verb = *self.random.of(&["deny", "allow"]);
        self.lvx(&["prefix", verb, &network]);
        self.prefixes.insert(network);
    }

    fn mark(&mut self) {
        let mark = 1 + self.random.below(4) as u32;
        let port = (11_000 + mark).to_string();
        let number = mark.to_string();
        if self.marks.remove(&mark) {
            self.ipvsadm(&format!("-D -f {mark}"));
            self.lvx(&["fwmark", "del", &number, "10.1.0.1", "tcp", &port]);
        } else {
            self.lvx(&["fwmark", "add", &number, "10.1.0.1", "tcp", &port]);
            self.ipvsadm(&format!("-A -f {mark} -s wlc"));
            self.marks.insert(mark);
        }
    }

    /// A service with its servers, at once or not at all.
    fn transaction(&mut self) {
        let port = OTHERS.start + self.random.below(OTHERS.len() as u64) as u16;
        let service = Family::V4.service(port);
        let lines = match self.services.remove(&service) {
            Some(_) => {
                self.limited.remove(&service);
                vec![format!("delete service tcp {service}")]
            }
            None => {
                let mut lines = vec![format!("add service tcp {service} scheduler wlc")];
                let mut servers = Servers::new();
                for number in 11..14 {
                    let server = format!("10.2.0.{number}:{port}");
                    lines.push(format!("add server tcp {service} {server} nat weight 2"));
                    servers.insert(server, "-m");
                }
                self.services.insert(service, servers);
                lines
            }
        };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.shell(&[&["edit"], lines.as_slice(), &["commit"]].concat());
    }

    /// A commit that the director must take back by itself.
    fn unconfirmed(&mut self) {
        let service = Family::V4.service(UNCONFIRMED);
        let add = format!("add service tcp {service}");
        self.shell(&["edit", &add, "commit confirmed 2"]);
        let begin = Instant::now();
        loop {
            let output = self.scene.operator.ipvsadm("-S -n");
            if output.status.success() && !text(&output.stdout).contains(&service) {
                return;
            }
            if begin.elapsed() > PATIENCE {
                return self.scene.fault(format!(
                    "a commit that nobody confirmed is in force: {}",
                    output_text(&output)
                ));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn tunable(&mut self) {
        let name = *self.random.of(&[
            "sloppy_sctp",
            "expire_quiescent_template",
            "nat_icmp_send",
            "drop_entry",
            "pmtu_disc",
        ]);
        let value = self.random.below(2).to_string();
        self.lvx(&["set", name, &value]);
    }

    fn look(&mut self) {
        for words in ["-Ln --stats", "-Lnc", "-Ln --rate", "-L --timeout"] {
            self.ipvsadm(words);
        }
        self.lvx(&["counters"]);
        self.lvx(&[
            "explain",
            "tcp",
            "10.9.0.1:1001",
            &Family::V4.service(REQUESTS),
        ]);
        if self.random.one_in(8) {
            self.ipvsadm("-Z");
        }
    }

    /// Of the services whose connections count: never all servers at 0, since clients would be refused.
    fn weigh(&mut self) {
        let family = *self.random.of(&FAMILIES);
        let (flag, port) =
            *self
                .random
                .of(&[("-t", DOWNLOADS), ("-t", REQUESTS), ("-u", DATAGRAMS)]);
        let service = family.service(port);
        if self.random.one_in(4) {
            let scheduler = self.random.of(&["rr", "wrr", "lc", "wlc"]);
            return self.ipvsadm(&format!("-E {flag} {service} -s {scheduler}"));
        }
        // The first always takes connections.
        let index = 1 + self.random.below(METHODS.len() as u64) as usize;
        let least = u64::from(index == 1);
        let weight = least + self.random.below(5);
        self.set_weight(family, (flag, port), index, weight);
    }

    fn set_weight(&mut self, family: Family, (flag, port): (&str, u16), index: usize, weight: u64) {
        let (service, server) = (family.service(port), family.server(index, port));
        let method = METHODS[index - 1].flag();
        self.ipvsadm(&format!(
            "-e {flag} {service} -r {server} {method} -w {weight}"
        ));
    }

    /// All as it was.
    fn tidy(&mut self) {
        for service in std::mem::take(&mut self.services).into_keys() {
            self.ipvsadm(&format!("-D -t {service}"));
        }
        while let Some(&mark) = self.marks.first() {
            self.ipvsadm(&format!("-D -f {mark}"));
            let port = (11_000 + mark).to_string();
            self.lvx(&["fwmark", "del", &mark.to_string(), "10.1.0.1", "tcp", &port]);
            self.marks.remove(&mark);
        }
        self.lvx(&["prefix", "forget", "--all"]);
        self.lvx(&["set", "drop_entry", "0"]);
        for family in FAMILIES {
            for (flag, port) in [("-t", DOWNLOADS), ("-t", REQUESTS), ("-u", DATAGRAMS)] {
                self.ipvsadm(&format!("-E {flag} {} -s rr", family.service(port)));
                (1..=METHODS.len())
                    .for_each(|index| self.set_weight(family, (flag, port), index, 1));
            }
        }
    }

    fn a_service(&mut self) -> Option<String> {
        let count = self.services.len() as u64;
        let which = (count > 0).then(|| self.random.below(count))?;
        self.services.keys().nth(which as usize).cloned()
    }

    fn a_server(&mut self) -> Option<(String, String, &'static str)> {
        let service = self.a_service()?;
        let servers = &self.services[&service];
        let count = servers.len() as u64;
        let which = (count > 0).then(|| self.random.below(count))?;
        let (server, method) = servers.iter().nth(which as usize)?;
        Some((service, server.clone(), method))
    }

    fn ipvsadm(&self, words: &str) {
        self.apply(&format!("ipvsadm {words}"), || {
            self.scene.operator.ipvsadm(words)
        });
    }

    fn lvx(&self, words: &[&str]) {
        self.apply(&format!("lvx {words:?}"), || self.scene.operator.lvx(words));
    }

    fn shell(&self, lines: &[&str]) {
        let mut words = vec!["shell"];
        lines.iter().for_each(|line| words.extend(["-c", line]));
        self.lvx(&words);
    }

    /// Carries out a command, again where the director was away. One that is refused then may have been carried out
    /// the first time.
    fn apply(&self, what: &str, run: impl Fn() -> Output) {
        let (begin, mut again) = (Instant::now(), false);
        loop {
            let output = run();
            self.scene.tally.edits.fetch_add(1, Relaxed);
            if output.status.success() {
                return;
            }
            let said = output_text(&output);
            if is_away(&said) && begin.elapsed() < PATIENCE {
                again = true;
                self.scene.tally.repeated_edits.fetch_add(1, Relaxed);
                thread::sleep(Duration::from_millis(50));
            } else if again && !is_away(&said) {
                return;
            } else {
                return self.scene.fault(format!("{what}: {said}"));
            }
        }
    }
}

/// What a client says where one director has gone and the next is not there yet.
fn is_away(said: &str) -> bool {
    let words = ["no director answers", "broke off", "is ending"];
    words.iter().any(|words| said.contains(words))
}
