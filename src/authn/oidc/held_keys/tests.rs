use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::json;

use super::*;

/// A key of the issuer.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Self { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> serde_json::Value {
        // 4, then both coordinates (SEC 1, section 2.3.3).
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|it| URL_SAFE_NO_PAD.encode(it));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id, "x": x, "y": y})
    }

    fn token(&self, id: Option<&str>) -> String {
        let header = id.map_or(json!({"alg": "ES256"}), |id| json!({"alg": "ES256", "kid": id}));
        let signed = format!("{}.e30", URL_SAFE_NO_PAD.encode(header.to_string()));
        let signature = self.pair.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An issuer: what it answers to each question (the last answer to all further ones), and how often it was asked.
#[derive(Clone)]
struct Issuer {
    answers: Arc<Mutex<VecDeque<Option<Keys>>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn new() -> Self {
        Self { answers: Arc::default(), asked: Arc::default() }
    }

    /// Answers with these keys from now on.
    fn has(&self, keys: &[&Key]) {
        let set = json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()});
        *self.answers.lock().unwrap() = [Some(Keys::read(&set, &[]).unwrap().0)].into();
    }

    /// Does not answer from now on.
    fn fails(&self) {
        *self.answers.lock().unwrap() = [None].into();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn held(&self) -> HeldKeys {
        let of = self.clone();
        let fetch = move || {
            of.asked.fetch_add(1, Ordering::Relaxed);
            let answer = of.answers.lock().unwrap().front().cloned().flatten();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let published = answer.map(|keys| Published { keys, endpoints: None });
                published.ok_or_else(|| anyhow::anyhow!("no answer"))
            }
            .boxed()
        };
        HeldKeys::new(Box::new(fetch), Box::new(|_| ()))
    }
}

async fn verify(held: &HeldKeys, token: &str) -> Result<(), Unverified> {
    held.verify(&IdToken::read(token).unwrap()).await
}

const WRONG: Result<(), Unverified> = Err(Unverified::Wrong(Refused::Signature));
const UNAVAILABLE: Result<(), Unverified> = Err(Unverified::Unavailable);

#[tokio::test(start_paused = true)]
async fn known_keys_decide_without_a_question() {
    let (issuer, key, other) = (Issuer::new(), Key::new("a"), Key::new("a"));
    issuer.has(&[&key]);
    let held = issuer.held();
    assert_eq!(verify(&held, &key.token(Some("a"))).await, Ok(()));
    for _ in 0..100 {
        assert_eq!(verify(&held, &key.token(Some("a"))).await, Ok(()));
        assert_eq!(verify(&held, &key.token(None)).await, Ok(()));
        assert_eq!(verify(&held, &other.token(Some("a"))).await, WRONG, "another key of that name");
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_key_is_asked_for_once_in_ten_seconds() {
    let (issuer, old, new) = (Issuer::new(), Key::new("old"), Key::new("new"));
    issuer.has(&[&old]);
    let held = issuer.held();
    assert_eq!(verify(&held, &old.token(Some("old"))).await, Ok(()));
    issuer.has(&[&old, &new]);
    for _ in 0..100 {
        assert_eq!(verify(&held, &new.token(Some("new"))).await, UNAVAILABLE, "never refused");
        assert_eq!(verify(&held, &new.token(None)).await, UNAVAILABLE, "never refused");
        assert_eq!(verify(&held, &old.token(Some("old"))).await, Ok(()), "others are not affected");
    }
    assert_eq!(issuer.asked(), 1);
    tokio::time::advance(ASK_AGAIN).await;
    assert_eq!(verify(&held, &new.token(Some("new"))).await, Ok(()));
    assert_eq!(verify(&held, &Key::new("x").token(Some("x"))).await, UNAVAILABLE);
    tokio::time::advance(ASK_AGAIN).await;
    assert_eq!(verify(&held, &Key::new("x").token(Some("x"))).await, WRONG, "the issuer has no such key now");
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_question_answers_the_few_who_wait() {
    let (issuer, key) = (Issuer::new(), Key::new("a"));
    issuer.has(&[&key]);
    let (held, token) = (issuer.held(), key.token(Some("a")));
    let all = join_all((0..50).map(|_| verify(&held, &token))).await;
    let (accepted, others): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), issuer.asked()), (WAITING, 1));
    assert!(others.iter().all(|one| *one == UNAVAILABLE), "they do not wait: {others:?}");
}

#[tokio::test(start_paused = true)]
async fn keys_live_for_an_hour_without_an_answer() {
    let (issuer, key) = (Issuer::new(), Key::new("a"));
    issuer.has(&[&key]);
    let (held, token) = (issuer.held(), key.token(Some("a")));
    assert_eq!(verify(&held, &token).await, Ok(()));
    issuer.fails();
    // The answer is as old as the question, a second ago.
    tokio::time::advance(LIFETIME - Duration::from_secs(2)).await;
    assert_eq!(verify(&held, &token).await, Ok(()));
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert_eq!(verify(&held, &token).await, UNAVAILABLE);
    }
    assert_eq!(issuer.asked(), 2);
    issuer.has(&[&key]);
    tokio::time::advance(ASK_AGAIN).await;
    assert_eq!(verify(&held, &token).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_and_a_removed_one_is_refused() {
    let (issuer, key, next) = (Issuer::new(), Key::new("a"), Key::new("b"));
    issuer.has(&[&key]);
    let held = issuer.held();
    let test = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((verify(&held, &key.token(Some("a"))).await, issuer.asked()), (Ok(()), 1));
        issuer.has(&[&next]);
        tokio::time::sleep(REFRESH).await;
        assert_eq!((verify(&held, &next.token(Some("b"))).await, issuer.asked()), (Ok(()), 2));
        assert_eq!(verify(&held, &key.token(Some("a"))).await, WRONG, "asked once more, and it is gone");
        issuer.fails();
        tokio::time::sleep(REFRESH + RETRY * 2 + Duration::from_secs(5)).await;
        assert_eq!(issuer.asked(), 6, "two refreshes more, each tried again after a pause");
        assert_eq!(verify(&held, &next.token(Some("b"))).await, Ok(()), "what is known still counts");
    };
    tokio::select! {
        () = held.keep_fresh() => panic!("it never ends"),
        () = test => {}
    }
}
