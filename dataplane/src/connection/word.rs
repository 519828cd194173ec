//! A connection's state and flags in one word, so that a change of both is one step.

/// How a connection's packets reach its server; fixed when the connection begins, as
/// IPVS does (an edit of the server's method moves no live connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Method {
    /// NAT.
    Masquerade = 0,
    /// The server is the host itself.
    Local = 1,
    /// IP tunnel; its kind is the server's at the time of each packet.
    Tunnel = 2,
    /// Direct routing.
    Route = 3,
}

const STATE: u32 = 0xff;
const METHOD_SHIFT: u32 = 8;
const INACTIVE: u32 = 1 << 10;
const ONE_SIDED: u32 = 1 << 11;
const ENDED: u32 = 1 << 12;
const RETIRED: u32 = 1 << 13;
const SHARED: u32 = 1 << 14;
const PREFERRED: u32 = 1 << 15;

/// State (bits 0 to 7), method (8 and 9) and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u32);

impl Word {
    /// A connection that just began: state 0, counted as inactive (Linux binds every
    /// connection so), and seen from one side only unless it is masqueraded.
    pub const fn new(method: Method) -> Self {
        let one_sided = match method {
            Method::Masquerade => 0,
            _ => ONE_SIDED,
        };
        Self((method as u32) << METHOD_SHIFT | INACTIVE | one_sided)
    }

    /// The state's number in its protocol.
    pub const fn state(self) -> u8 {
        (self.0 & STATE) as u8
    }

    /// How its packets reach the server.
    pub const fn method(self) -> Method {
        match self.0 >> METHOD_SHIFT & 3 {
            0 => Method::Masquerade,
            1 => Method::Local,
            2 => Method::Tunnel,
            _ => Method::Route,
        }
    }

    /// Whether its method is [`Method::Masquerade`]: one question where [`Word::method`] asks
    /// which of four.
    #[inline(always)]
    pub const fn is_masqueraded(self) -> bool {
        self.0 & 3 << METHOD_SHIFT == 0
    }

    /// Whether it is masqueraded and, where a reply finds it, surely the one that is meant: none
    /// shares both endpoints with it.
    #[inline(always)]
    pub const fn is_masqueraded_alone(self) -> bool {
        self.0 & (3 << METHOD_SHIFT | SHARED) == 0
    }

    /// Whether its method, where it is not [masqueraded alone](Word::is_masqueraded_alone), is
    /// neither [`Method::Local`] nor [`Method::Route`] nor [`Method::Masquerade`].
    #[inline(always)]
    pub const fn is_tunnelled(self) -> bool {
        self.0 & (1 << METHOD_SHIFT | SHARED) == 0
    }

    /// Whether replies go to the client past the director: by [`Method::Tunnel`] and
    /// [`Method::Route`].
    #[inline(always)]
    pub const fn is_answered_directly(self) -> bool {
        self.0 & 2 << METHOD_SHIFT != 0
    }

    /// Whether it counts as inactive.
    pub const fn is_inactive(self) -> bool {
        self.0 & INACTIVE != 0
    }

    /// Whether only the client's packets were seen (Linux's `IP_VS_CONN_F_NOOUTPUT`).
    pub const fn is_one_sided(self) -> bool {
        self.0 & ONE_SIDED != 0
    }

    /// Whether the connection was taken out of the table; nothing may change any more.
    pub const fn is_ended(self) -> bool {
        self.0 & ENDED != 0
    }

    /// Whether the connection is in the table and in `state`, counted so, and (but where it
    /// may be) not seen from one side only.
    #[inline(always)]
    pub const fn is_in(self, state: u8, is_inactive: bool, may_be_one_sided: bool) -> bool {
        let asked = STATE | INACTIVE | ENDED | if may_be_one_sided { 0 } else { ONE_SIDED };
        let wanted = Self(0).with_state(state).with_inactive(is_inactive);
        self.0 & asked == wanted.0
    }

    /// The same, taken out of the table.
    #[must_use]
    pub const fn ended(self) -> Self {
        Self(self.0 | ENDED)
    }

    /// Whether it is a template that gives no more connections their server, but stays while
    /// those it gave one live.
    pub const fn is_retired(self) -> bool {
        self.0 & RETIRED != 0
    }

    /// The same, as a retired template.
    #[must_use]
    pub const fn retired(self) -> Self {
        Self(self.0 | RETIRED)
    }

    /// Whether another masqueraded connection has, or had, the same endpoints of client and
    /// server: replies of the two look alike.
    pub const fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }

    /// Whether of those it is the one that replies are taken for.
    pub const fn is_preferred(self) -> bool {
        self.0 & PREFERRED != 0
    }

    /// The same, sharing its endpoints: replies are taken for it, or for another.
    #[must_use]
    pub const fn shared(self, is_preferred: bool) -> Self {
        let preferred = if is_preferred { PREFERRED } else { 0 };
        Self(self.0 & !PREFERRED | SHARED | preferred)
    }

    /// The same, alone with its endpoints.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self(self.0 & !(SHARED | PREFERRED))
    }

    /// The same in another state.
    #[must_use]
    pub const fn with_state(self, state: u8) -> Self {
        Self(self.0 & !STATE | state as u32)
    }

    /// The same, counted as inactive or active.
    #[must_use]
    pub const fn with_inactive(self, inactive: bool) -> Self {
        Self(self.0 & !INACTIVE | if inactive { INACTIVE } else { 0 })
    }

    /// The same, after a packet from the server was seen.
    #[must_use]
    pub const fn two_sided(self) -> Self {
        Self(self.0 & !ONE_SIDED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_touch_each_other() {
        for method in [
            Method::Masquerade,
            Method::Local,
            Method::Tunnel,
            Method::Route,
        ] {
            let word = Word::new(method).with_state(13).with_inactive(false);
            assert_eq!(word.method(), method);
            assert_eq!(word.state(), 13);
            assert!(!word.is_inactive());
            assert_eq!(word.is_one_sided(), method != Method::Masquerade);
            assert!(!word.two_sided().is_one_sided());
            assert!(!word.is_retired() && word.retired().is_retired());
            assert_eq!(word.retired().state(), 13);
            assert!(!word.is_shared() && !word.is_preferred());
            for is_preferred in [false, true] {
                let shared = word.shared(!is_preferred).shared(is_preferred);
                assert_eq!(shared.is_preferred(), is_preferred);
                assert!(shared.is_shared() && !shared.is_masqueraded_alone());
                assert_eq!((shared.method(), shared.state()), (method, 13));
                assert_eq!(shared.alone(), word);
            }
            let is_masqueraded = method == Method::Masquerade;
            assert_eq!(word.is_masqueraded_alone(), is_masqueraded);
        }
    }
}
