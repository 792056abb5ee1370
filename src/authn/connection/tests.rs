use super::*;

fn request(header: usize) -> Request<()> {
    Request::builder().uri("/a").header("x", "a".repeat(header)).body(()).unwrap()
}

#[tokio::test]
async fn unauthenticated_requests_wait_until_a_credential_is_accepted() {
    let (connection, capacity) = (Connection::default(), Capacity::default());
    let mut places = Vec::new();
    for _ in 0..UNAUTHENTICATED_REQUESTS {
        places.push(connection.admit(1, &capacity).await.unwrap());
    }
    let mut next = std::pin::pin!(connection.admit(1, &capacity));
    assert!(futures::poll!(&mut next).is_pending());
    connection.authenticate();
    places.push(next.await.unwrap());
    connection.authenticate();
    assert_eq!(connection.0.slots.available_permits(), REQUESTS - places.len(), "more places, but only once");
}

#[tokio::test]
async fn unauthenticated_connections_take_turns() {
    let capacity = Capacity::default();
    let crowd: Vec<Connection> = (0..ALL_UNAUTHENTICATED_REQUESTS).map(|_| Connection::default()).collect();
    let mut places = Vec::new();
    for connection in &crowd {
        places.push(connection.admit(1, &capacity).await.unwrap());
    }
    let (greedy, modest) = (&crowd[0], Connection::default());
    let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(greedy.admit(1, &capacity))).collect();
    for request in &mut waiting {
        assert!(futures::poll!(request).is_pending());
    }
    let mut own = std::pin::pin!(modest.admit(1, &capacity));
    assert!(futures::poll!(&mut own).is_pending());
    places.drain(1..1 + UNAUTHENTICATED_REQUESTS);
    let own = tokio::time::timeout(Duration::from_secs(60), own).await;
    assert!(own.is_ok_and(|place| place.is_some()), "the other requests of that connection come later");
}

#[tokio::test]
async fn sum_of_unauthenticated_heads_is_bounded() {
    let (connection, capacity) = (Connection::default(), Capacity::default());
    let large = weight(&request(40_000));
    assert!((40_000..40_500).contains(&large), "{large}");
    let mut places = Vec::new();
    while let Some(place) = connection.admit(large, &capacity).await {
        places.push(place);
    }
    assert_eq!(places.len(), 3);
    places.pop();
    assert!(connection.admit(large, &capacity).await.is_some());
    assert!(connection.admit(u32::MAX, &capacity).await.is_none());
}

#[tokio::test]
async fn all_authenticated_connections_share_one_capacity() {
    let capacity = Capacity::default();
    let all: Vec<Connection> = (0..4).map(|_| Connection::default()).collect();
    all.iter().for_each(Connection::authenticate);
    let mut places = Vec::new();
    for n in 0..ALL_REQUESTS {
        places.push(all[n % 3].admit(1, &capacity).await.unwrap());
    }
    assert!(all[3].admit(1, &capacity).await.is_none());
    places.pop();
    assert!(all[3].admit(1, &capacity).await.is_some());
    assert!(Connection::default().admit(1, &capacity).await.is_some(), "a new client may still log on");
}

#[test]
fn bytes_of_an_unauthenticated_client_are_bounded() {
    let connection = Connection::default();
    assert!(connection.receive(UNAUTHENTICATED_BYTES));
    assert!(!connection.receive(1));
    connection.forget(2);
    assert!(connection.receive(1), "dropped bytes do not count");
    connection.authenticate();
    assert!(connection.receive(usize::MAX));
}

#[test]
fn connection_is_idle_while_it_has_no_request() {
    let connection = Connection::default();
    let later = || Instant::now() + Duration::from_secs(5);
    assert!(connection.usage(later()).idle >= Some(Duration::from_secs(5)));
    let (first, second) = (connection.begin(), connection.begin());
    drop(first);
    assert_eq!((connection.usage(later()).idle, connection.usage(later()).requests), (None, 2));
    let answer = connection.begin_answer();
    drop(second);
    assert_eq!(connection.usage(later()).idle, None, "it is still being answered");
    connection.end_answer(answer);
    assert!(connection.usage(later()).idle.is_some());
}
