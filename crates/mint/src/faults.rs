//! Tokens with faults: a table of mistakes that are met in the field, each with the check that it fails and
//! words of the advice. Several faults of a token can be combined where none hides another.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::{Algorithm, Key};

/// Identity providers, and the keys of their tokens.
pub struct Realm {
    signers: Vec<(Signer, Key)>,
}

/// A key that signs tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The key `k1` of the provider `acme`, ES256.
    Acme,
    /// The key `r1` of the same provider, RS256.
    AcmeRsa,
    /// The key `k9` of the provider `other`, ES256.
    Other,
    /// A key of no provider, ES256.
    Stranger,
    /// A secret of no provider, HS256.
    Secret,
    /// The key `c1` of the provider `clerk`, ES256.
    Clerk,
    /// The key `e1` of the provider `entra`, ES256.
    Entra,
}

/// A token in the making.
pub struct Draft {
    /// The header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
    signer: Signer,
    /// The payload in place of the claims.
    payload: Option<fn(&str) -> String>,
    is_changed: bool,
    is_der: bool,
    wrap: fn(&str) -> String,
    now: i64,
}

/// A mistake.
pub struct Fault {
    /// The name.
    pub name: &'static str,
    /// The check of `auth.inspect` that it fails, or that gives the advice.
    pub check: &'static str,
    /// Whether a token with this fault alone is accepted.
    pub is_accepted: bool,
    /// Whether only a session of a database notices it.
    pub needs_session: bool,
    /// Words of the advice.
    pub advice: &'static str,
    /// The checks that the fault hides, or that hide the fault.
    conflicts: &'static [&'static str],
    apply: fn(&mut Draft),
}

impl Realm {
    /// Generates the keys.
    pub fn generate() -> Self {
        let key = |signer, kid| (signer, Key::generate(Algorithm::ES256).with_kid(kid));
        let signers = vec![
            key(Signer::Acme, "k1"),
            (Signer::AcmeRsa, Key::generate(Algorithm::RS256).with_kid("r1")),
            key(Signer::Other, "k9"),
            key(Signer::Stranger, "k1"),
            (Signer::Secret, Key::generate(Algorithm::HS256)),
            key(Signer::Clerk, "c1"),
            key(Signer::Entra, "e1"),
        ];
        Self { signers }
    }

    /// A key.
    ///
    /// # Panics
    /// Never: every signer has a key.
    pub fn key(&self, signer: Signer) -> &Key {
        let found = self.signers.iter().find(|(other, _)| *other == signer);
        &found.expect("every signer has a key").1
    }

    /// The providers as members of `pg_session_jwt.providers`. The session takes the role in the claim `role`:
    /// `reader` or `writer`, or `stranger`, which no session may take.
    pub fn providers(&self) -> Value {
        let keys = |signers: &[Signer]| {
            let keys = signers.iter().map(|signer| {
                let mut jwk = self.key(*signer).public_jwk();
                // The provider lists the algorithms.
                jwk.as_object_mut().map(|members| members.remove("alg"));
                jwk
            });
            json!({"keys": keys.collect::<Vec<_>>()})
        };
        json!([
            {
                "name": "acme", "issuer": "https://login.acme.example/realm", "audience": ["todos"],
                "jwks": keys(&[Signer::Acme, Signer::AcmeRsa]), "algorithms": ["ES256", "RS256"],
                "required_claims": ["exp", "email"], "require": {"token_use": "access"},
                "role_claim": "role", "allowed_roles": ["reader", "writer", "stranger"],
                "monotonic_jti": true,
            },
            {
                "name": "other", "issuer": "https://other.example", "audience": ["billing"],
                "jwks": keys(&[Signer::Other]),
            },
            {"name": "clerk", "issuer": "https://clerk.acme.example", "jwks": keys(&[Signer::Clerk])},
            {
                "name": "entra", "audience": ["todos"], "jwks": keys(&[Signer::Entra]),
                "issuer": "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
            },
        ])
    }

    /// A token of `acme` that is accepted at `now`, in seconds since 1970.
    pub fn draft(&self, now: i64) -> Draft {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        Draft {
            header: object(json!({"alg": "ES256", "kid": "k1", "typ": "JWT"})),
            claims: object(json!({
                "iss": "https://login.acme.example/realm", "aud": ["todos"], "sub": "alice",
                "email": "alice@acme.example", "role": "reader", "token_use": "access", "jti": 10,
                "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
            })),
            signer: Signer::Acme,
            payload: None,
            is_changed: false,
            is_der: false,
            wrap: str::to_owned,
            now,
        }
    }

    /// The text of a token.
    pub fn sign(&self, draft: &Draft) -> String {
        let key = self.key(draft.signer);
        let mut claims = draft.claims.clone();
        let text = |claims: &Map<String, Value>| Value::from(claims.clone()).to_string();
        let header = Value::from(draft.header.clone()).to_string();
        let payload = match draft.payload {
            None => text(&claims),
            Some(of) => of(&key.sign(&Value::from(claims.clone()))),
        };
        let token = key.sign_raw(header.as_bytes(), payload.as_bytes());
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        if draft.is_changed {
            claims.insert("admin".to_owned(), true.into());
            parts[1] = URL_SAFE_NO_PAD.encode(text(&claims));
        }
        if draft.is_der {
            let signature = URL_SAFE_NO_PAD.decode(&parts[2]).unwrap_or_default();
            parts[2] = URL_SAFE_NO_PAD.encode(der(&signature));
        }
        (draft.wrap)(&parts.join("."))
    }
}

/// Two numbers of equal length as a SEQUENCE of INTEGERs.
fn der(numbers: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|octet| **octet == 0).count();
        let mut number = number[zeros..].to_vec();
        if number.first().is_none_or(|first| *first >= 0x80) {
            number.insert(0, 0);
        }
        let mut out = vec![2, u8::try_from(number.len()).unwrap_or(0)];
        out.append(&mut number);
        out
    };
    let (r, s) = numbers.split_at(numbers.len() / 2);
    let contents = [integer(r), integer(s)].concat();
    let mut out = vec![0x30, u8::try_from(contents.len()).unwrap_or(0)];
    out.extend(contents);
    out
}

impl Draft {
    fn claim(&mut self, name: &str, value: impl Into<Value>) {
        self.claims.insert(name.to_owned(), value.into());
    }

    fn parameter(&mut self, name: &str, value: impl Into<Value>) {
        self.header.insert(name.to_owned(), value.into());
    }
}

impl Fault {
    const fn new(
        name: &'static str,
        check: &'static str,
        advice: &'static str,
        apply: fn(&mut Draft),
    ) -> Self {
        let conflicts: &[&str] = &[];
        Self { name, check, is_accepted: false, needs_session: false, advice, conflicts, apply }
    }

    /// The fault hides these checks, or they hide it.
    const fn hides(self, conflicts: &'static [&'static str]) -> Self {
        Self { conflicts, ..self }
    }

    const fn accepted(self) -> Self {
        Self { is_accepted: true, ..self }
    }

    const fn in_session(self) -> Self {
        Self { needs_session: true, ..self }
    }

    /// Whether a token can have both faults.
    pub fn fits(&self, other: &Self) -> bool {
        self.check != other.check
            && !self.conflicts.contains(&other.check)
            && !other.conflicts.contains(&self.check)
    }

    /// Puts the fault into a token.
    pub fn put(&self, draft: &mut Draft) {
        (self.apply)(draft);
    }
}

/// Every check.
const ALL: &[&str] = &[
    "size",
    "form",
    "header",
    "payload",
    "provider",
    "key",
    "algorithm",
    "signature",
    "required claims",
    "audience",
    "subject",
    "role",
    "representability",
    "time",
    "replay",
];

/// What is not judged without a payload, and what the payload decides.
const AFTER_PAYLOAD: &[&str] = &[
    "size",
    "header",
    "provider",
    "key",
    "algorithm",
    "signature",
    "required claims",
    "audience",
    "subject",
    "role",
    "representability",
    "time",
    "replay",
];

/// What is not judged where no provider is near, and the faults by which none is.
const WITHOUT_PROVIDER: &[&str] = &[
    "header",
    "key",
    "algorithm",
    "signature",
    "required claims",
    "audience",
    "subject",
    "role",
    "replay",
];

/// The mistakes.
pub static FAULTS: &[Fault] = &[
    Fault::new("too long", "size", "leave claims out", |draft| {
        draft.claim("groups", vec!["00000000-0000-0000-0000-000000000000"; 500]);
    }),
    Fault::new("Bearer", "form", "without the word \"Bearer\"", |draft| {
        draft.wrap = |token| format!("Bearer {token}");
    }),
    Fault::new("quotes", "form", "without quotes", |draft| {
        draft.wrap = |token| format!("\"{token}\"");
    }),
    Fault::new("a line end", "form", "Present the token without it", |draft| {
        draft.wrap = |token| format!("{token}\n");
    }),
    Fault::new("broken into lines", "form", "in one line", |draft| {
        draft.wrap = |token| token.replace('.', ".\n");
    }),
    Fault::new("percent-encoding", "form", "Decode it from percent-encoding", |draft| {
        draft.wrap = |token| token.replace('.', "%2E");
    }),
    Fault::new("padding", "form", "Remove each \"=\"", |draft| {
        draft.wrap = |token| format!("{token}=")
    }),
    Fault::new(
        "a response of the token endpoint",
        "form",
        "the value of \"access_token\"",
        |draft| {
            draft.wrap = |token| format!("{{\"access_token\": \"{token}\"}}");
        },
    ),
    Fault::new("a cookie", "form", "the text between \"=\" and", |draft| {
        draft.wrap = |token| format!("session={token}; path=/");
    }),
    Fault::new("two tokens", "form", "one of them alone", |draft| {
        draft.wrap = |token| format!("{token}\n{token}");
    })
    .hides(ALL),
    Fault::new("opaque", "form", "Ask the identity provider for a JWT", |draft| {
        draft.wrap = |_| "8xLOxBtZp8Yc2kq0".to_owned();
    })
    .hides(ALL),
    Fault::new("encrypted", "form", "Present a signed one", |draft| {
        draft.wrap = |_| {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
            format!("{header}.YWJj.ZGVm.Z2hp.amts")
        };
    })
    .hides(ALL),
    Fault::new("cut", "form", "Present the whole token", |draft| {
        draft.wrap =
            |token| token.rsplit_once('.').map_or_else(String::new, |(cut, _)| cut.to_owned());
    })
    .hides(ALL),
    Fault::new("empty", "form", "", |draft| draft.wrap = |_| String::new()).hides(ALL),
    Fault::new("unsigned", "header", "Unsigned tokens are never accepted", |draft| {
        draft.parameter("alg", "none");
    })
    .hides(&["key", "algorithm", "signature"]),
    Fault::new("unsupported algorithm", "header", "", |draft| draft.parameter("alg", "ES512"))
        .hides(&["key", "algorithm", "signature"]),
    Fault::new("without algorithm", "header", "", |draft| {
        draft.header.remove("alg");
    })
    .hides(&["form", "key", "algorithm", "signature"]),
    Fault::new("critical extension", "header", "No extension is supported", |draft| {
        draft.parameter("crit", vec!["exp"]);
    }),
    Fault::new("compressed", "header", "neither encrypted nor compressed", |draft| {
        draft.parameter("zip", "DEF");
    }),
    Fault::new("a number as kid", "header", "", |draft| draft.parameter("kid", 1))
        .hides(&["key", "algorithm"]),
    Fault::new("type of a logout token", "header", "", |draft| {
        draft.parameter("typ", "logout+jwt")
    })
    .hides(&["payload", "provider"]),
    Fault::new("no JSON", "payload", "", |draft| draft.payload = Some(|_| "alice".to_owned()))
        .hides(AFTER_PAYLOAD),
    Fault::new("an array", "payload", "", |draft| draft.payload = Some(|_| "[1]".to_owned()))
        .hides(AFTER_PAYLOAD),
    Fault::new("a name twice", "payload", "", |draft| {
        draft.payload = Some(|_| r#"{"sub":"alice","sub":"bob"}"#.to_owned());
    })
    .hides(AFTER_PAYLOAD),
    Fault::new("nested", "payload", "Present the inner token", |draft| {
        draft.payload = Some(str::to_owned);
    })
    .hides(AFTER_PAYLOAD),
    Fault::new("a slash at the end of the issuer", "provider", "a slash at the end", |draft| {
        draft.claim("iss", "https://login.acme.example/realm/");
    })
    .hides(&["header"]),
    Fault::new("case of the issuer", "provider", "upper and lower case", |draft| {
        draft.claim("iss", "https://login.acme.example/Realm");
    })
    .hides(&["header"]),
    Fault::new("scheme of the issuer", "provider", "http or https", |draft| {
        draft.claim("iss", "http://login.acme.example/realm");
    })
    .hides(&["header"]),
    Fault::new(
        "the discovery document as issuer",
        "provider",
        "the address of a document",
        |draft| {
            draft.claim("iss", "https://login.acme.example/realm/.well-known/openid-configuration");
        },
    )
    .hides(&["header"]),
    Fault::new(
        "another name of the issuer",
        "provider",
        "A key of the provider \"acme\" verifies",
        |draft| {
            draft.claim("iss", "https://auth.acme.example");
        },
    )
    .hides(&["header", "key", "algorithm", "signature"]),
    Fault::new("without issuer", "provider", "A key of the provider \"acme\" verifies", |draft| {
        draft.claims.remove("iss");
    })
    .hides(&["header", "key", "algorithm", "signature"]),
    Fault::new("a number as issuer", "provider", "", |draft| draft.claim("iss", 1))
        .hides(WITHOUT_PROVIDER),
    Fault::new(
        "unknown issuer",
        "provider",
        "SELECT auth.add_provider('login.new.example', ",
        |draft| {
            draft.claim("iss", "https://login.new.example");
            draft.signer = Signer::Stranger;
        },
    )
    .hides(WITHOUT_PROVIDER),
    Fault::new("development instance", "provider", "of a development instance of Clerk", |draft| {
        draft.claim("iss", "https://happy-otter-12.clerk.accounts.dev");
        draft.signer = Signer::Stranger;
    })
    .hides(WITHOUT_PROVIDER),
    Fault::new("another tenant", "provider", "of another tenant of Entra ID", |draft| {
        let tenant = "99999999-2222-3333-4444-555555555555";
        draft.claim("iss", format!("https://login.microsoftonline.com/{tenant}/v2.0"));
        draft.claim("tid", tenant);
        draft.signer = Signer::Stranger;
    })
    .hides(WITHOUT_PROVIDER),
    Fault::new(
        "another tenant with the same keys",
        "provider",
        "of another tenant of Entra ID",
        |draft| {
            let tenant = "99999999-2222-3333-4444-555555555555";
            draft.claim("iss", format!("https://login.microsoftonline.com/{tenant}/v2.0"));
            draft.parameter("kid", "e1");
            draft.signer = Signer::Entra;
        },
    )
    .hides(&["header", "key", "algorithm", "signature", "required claims", "role", "replay"]),
    Fault::new("unknown kid", "key", "", |draft| {
        draft.parameter("kid", "k2");
        draft.signer = Signer::Stranger;
    })
    .hides(&["signature"]),
    Fault::new(
        "kid that is not of the key",
        "key",
        "Another key of the provider verifies",
        |draft| {
            draft.parameter("kid", "k2");
        },
    )
    .hides(&["signature", "algorithm"]),
    Fault::new("key of another provider", "key", "A key of the provider \"other\"", |draft| {
        draft.parameter("kid", "k9");
        draft.signer = Signer::Other;
    })
    .hides(&["signature", "algorithm"]),
    Fault::new("kid of another provider", "key", "\"other\", whose issuer is", |draft| {
        draft.parameter("kid", "k9");
        draft.signer = Signer::Stranger;
    })
    .hides(&["signature"]),
    Fault::new("signed with a secret", "algorithm", "give the legacy JWT secret", |draft| {
        draft.parameter("alg", "HS256");
        draft.signer = Signer::Secret;
    })
    .hides(&["signature", "key"]),
    Fault::new("algorithm that is not listed", "algorithm", "add it to the algorithms", |draft| {
        draft.parameter("alg", "RS512");
        draft.parameter("kid", "r1");
        draft.signer = Signer::AcmeRsa;
    })
    .hides(&["signature", "key"]),
    Fault::new("algorithm of another key", "algorithm", "", |draft| {
        draft.parameter("alg", "EdDSA")
    })
    .hides(&["signature", "key"]),
    Fault::new("changed", "signature", "The token was changed", |draft| draft.is_changed = true),
    Fault::new("another key", "signature", "with another key", |draft| {
        draft.signer = Signer::Stranger
    }),
    Fault::new(
        "signature of another provider",
        "signature",
        "A key of the provider \"other\"",
        |draft| {
            draft.signer = Signer::Other;
        },
    ),
    Fault::new("DER", "signature", "r and s concatenated", |draft| draft.is_der = true),
    Fault::new("a missing claim", "required claims", "counts as missing", |draft| {
        draft.claims.remove("email");
    }),
    Fault::new("an empty claim", "required claims", "counts as missing", |draft| {
        draft.claim("email", "")
    }),
    Fault::new("an ID token", "required claims", "\"require\" lists", |draft| {
        draft.claim("token_use", "id");
    }),
    Fault::new("a text as jti", "required claims", "", |draft| draft.claim("jti", "a"))
        .hides(&["replay"]),
    Fault::new("another audience", "audience", "Request a token for this audience", |draft| {
        draft.claim("aud", "account");
    }),
    Fault::new("without audience", "audience", "Request a token for this audience", |draft| {
        draft.claims.remove("aud");
    }),
    Fault::new(
        "audience of another provider",
        "audience",
        "The provider \"other\", whose issuer",
        |draft| {
            draft.claim("aud", vec!["billing"]);
        },
    ),
    Fault::new("an array as sub", "subject", "", |draft| draft.claim("sub", vec!["alice"])),
    Fault::new("a fraction as sub", "subject", "", |draft| draft.claim("sub", 1.5)),
    Fault::new("without user id", "subject", "auth.user_id() would be NULL", |draft| {
        draft.claims.remove("sub");
    })
    .accepted(),
    Fault::new("an empty user id", "subject", "auth.user_id() would be NULL", |draft| {
        draft.claim("sub", "")
    })
    .accepted(),
    Fault::new("a role that is not allowed", "role", "", |draft| draft.claim("role", "postgres")),
    Fault::new("an object as role", "role", "", |draft| {
        draft.claim("role", json!({"name": "reader"}))
    }),
    Fault::new(
        "a role that the session may not take",
        "role",
        "grant the role to the login role",
        |draft| {
            draft.claim("role", "stranger");
        },
    )
    .in_session(),
    Fault::new("U+0000", "representability", "", |draft| draft.claim("name", "a\0b")),
    Fault::new("expired", "time", "Present a fresh token", |draft| {
        draft.claim("exp", draft.now - 3600)
    }),
    Fault::new("not yet valid", "time", "Compare the clocks", |draft| {
        draft.claim("nbf", draft.now + 3600);
    }),
    Fault::new("milliseconds", "time", "not milliseconds", |draft| {
        draft.claim("exp", (draft.now + 3600) * 1000);
    }),
    Fault::new("a text as exp", "time", "", |draft| draft.claim("exp", "tomorrow")),
    Fault::new("issued in the future", "time", "Compare the clocks", |draft| {
        draft.claim("iat", draft.now + 3600);
    })
    .accepted(),
    Fault::new("presented before", "replay", "a higher jti", |draft| draft.claim("jti", 1))
        .in_session(),
];

/// Random combinations of up to three faults, the same for the same seed.
pub fn combinations(seed: u64, count: usize) -> impl Iterator<Item = Vec<&'static Fault>> {
    // SplitMix64.
    let mut state = seed;
    let mut below = move |limit: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap_or(0)
    };
    std::iter::repeat_with(move || {
        let wanted = 1 + below(3);
        let mut faults: Vec<&Fault> = Vec::new();
        // Some faults fit no other.
        for _ in 0..30 {
            let fault = &FAULTS[below(FAULTS.len())];
            if faults.len() < wanted && faults.iter().all(|other| fault.fits(other)) {
                faults.push(fault);
            }
        }
        faults
    })
    .take(count)
}
