//! Who may ask what: the socket's mode keeps others out, and each request's peer is looked
//! at again. Root and the director's own user may do all, members of one group too if it is
//! named, members of a second one may look.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::door::Door;
use super::error;
use super::rights::Access;
use super::seats::Seat;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The groups, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Its members may do all.
    pub operators: Option<u32>,
    /// Its members may look.
    pub readers: Option<u32>,
}

/// Why a group cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("there is no group {0}: `groupadd --system {0}`")]
pub struct NoSuchGroup(String);

impl Groups {
    /// The groups of these names (or numbers).
    pub fn named(operators: Option<&str>, readers: Option<&str>) -> Result<Self, NoSuchGroup> {
        Ok(Self {
            operators: operators.map(number).transpose()?,
            readers: readers.map(number).transpose()?,
        })
    }

    /// Whether there is any.
    pub fn are_named(&self) -> bool {
        *self != Self::default()
    }

    /// Opens the socket as far as the groups need: one group by the file's own, a second by
    /// letting all connect, who are then asked.
    pub(super) fn open(&self, path: &Path) -> io::Result<()> {
        let mode = match (self.operators, self.readers) {
            (None, None) => return Ok(()),
            (Some(group), None) | (None, Some(group)) => {
                std::os::unix::fs::chown(path, None, Some(group))?;
                0o660
            }
            (Some(_), Some(_)) => 0o666,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
}

fn number(name: &str) -> Result<u32, NoSuchGroup> {
    let found = Group::from_name(name).ok().flatten();
    found
        .map(|group| group.gid.as_raw())
        .or_else(|| name.parse().ok())
        .ok_or_else(|| NoSuchGroup(name.to_owned()))
}

/// The user at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    user: Option<(u32, u32)>,
    seat: Arc<Seat>,
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self {
            user: stream.io().user(),
            seat: stream.io().seat(),
        }
    }
}

/// Lets a request pass whose peer may ask it.
pub(super) async fn admit(
    State(groups): State<Groups>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let _answering = peer.seat.answering();
    let access = access(groups, peer.user).await;
    let what = match access {
        Access::Nothing => not_for(groups),
        Access::Look if !only_looks(&request) => {
            "members of this group may look, and change nothing"
        }
        Access::Look | Access::Change | Access::Root => {
            request.extensions_mut().insert(access);
            return next.run(request).await;
        }
    };
    error(StatusCode::FORBIDDEN, what)
}

/// What those are told who may do nothing.
pub(super) fn not_for(groups: Groups) -> &'static str {
    match groups == Groups::default() {
        true => "only root and the director's own user may do this",
        false => "only root and members of the director's groups may do this",
    }
}

/// What a user may do, where no group has to be looked up for it.
pub(super) fn at_once(groups: Groups, (user, _): (u32, u32)) -> Option<Access> {
    let own = rustix::process::geteuid().as_raw();
    if user == 0 || user == own {
        return Some(Access::Root);
    }
    (groups == Groups::default()).then_some(Access::Nothing)
}

/// What a peer may do.
pub(super) async fn access(groups: Groups, peer: Option<(u32, u32)>) -> Access {
    let Some(peer) = peer else {
        return Access::Nothing;
    };
    if let Some(access) = at_once(groups, peer) {
        return access;
    }
    // May ask a directory server: not what other answers should wait for.
    let (user, group) = peer;
    let known = tokio::task::spawn_blocking(move || groups_of(user, group)).await;
    judge(groups, &known.unwrap_or_default())
}

fn judge(groups: Groups, known: &[u32]) -> Access {
    let is_in = |group: Option<u32>| group.is_some_and(|group| known.contains(&group));
    match (is_in(groups.operators), is_in(groups.readers)) {
        (true, _) => Access::Change,
        (false, true) => Access::Look,
        (false, false) => Access::Nothing,
    }
}

/// The group that the peer runs as, and all that its user belongs to.
fn groups_of(user: u32, group: u32) -> Vec<u32> {
    let mut known = vec![group];
    let Some(user) = User::from_uid(Uid::from_raw(user)).ok().flatten() else {
        return known;
    };
    known.push(user.gid.as_raw());
    if let Ok(name) = CString::new(user.name)
        && let Ok(list) = getgrouplist(&name, Gid::from_raw(group))
    {
        known.extend(list.iter().map(|group| group.as_raw()));
    }
    known
}

fn only_looks(request: &Request) -> bool {
    request.method() == Method::GET || matches!(request.uri().path(), "/v1/check" | "/v1/explain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_do_what() {
        let both = Groups {
            operators: Some(10),
            readers: Some(20),
        };
        let one = Groups {
            operators: None,
            readers: Some(20),
        };
        let rows = [
            ("of both groups", both, &[5, 20, 10][..], Access::Change),
            ("an operator", both, &[10], Access::Change),
            ("a reader", both, &[20], Access::Look),
            ("a stranger", both, &[5], Access::Nothing),
            ("a reader, without operators", one, &[20], Access::Look),
            ("no group's", one, &[], Access::Nothing),
            (
                "without groups",
                Groups::default(),
                &[10, 20],
                Access::Nothing,
            ),
        ];
        for (what, groups, known, expected) in rows {
            assert_eq!(judge(groups, known), expected, "{what}");
        }
    }

    #[test]
    fn what_only_looks() {
        let request = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            request.body(axum::body::Body::empty()).unwrap()
        };
        let rows = [
            ("GET", "/v1/table", true),
            ("POST", "/v1/explain", true),
            ("POST", "/v1/check", true),
            ("POST", "/v1/commands", false),
            ("POST", "/v1/commit", false),
            ("POST", "/v1/commit/confirm", false),
        ];
        for (method, path, expected) in rows {
            assert_eq!(
                only_looks(&request(method, path)),
                expected,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn groups_by_name_and_number() {
        let named = Groups::named(Some("root"), Some("4242")).unwrap();
        assert_eq!((named.operators, named.readers), (Some(0), Some(4242)));
        let error = Groups::named(Some("no such group"), None).unwrap_err();
        assert!(error.to_string().contains("groupadd"), "{error}");
        assert_eq!(groups_of(0, 7)[0], 7);
        assert!(groups_of(0, 7).contains(&0));
    }
}
