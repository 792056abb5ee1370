# A member's server in a pod: hostile.js, as a script or in a page, with headers that act on the whole origin.
use IO::Socket::INET;

open(my $file, '<', '/page/hostile.js') or die;
my $script = join '', <$file>;
my $server = IO::Socket::INET->new(Listen => 99, LocalPort => 80) or die;
$SIG{CHLD} = 'IGNORE';
while (my $client = $server->accept) {
    # The API server also opens connections that it does not need.
    next if fork;
    my $is_script = (<$client> // '') =~ m{\.js[? ]};
    1 while (<$client> // '') =~ /\S/;
    my $type = $is_script ? 'text/javascript' : 'text/html';
    my $page = "<!doctype html><title>box</title><script>\n$script</script>\n<p>a page of a pod</p>\n";
    print $client "HTTP/1.1 200 OK\r\nContent-Type: $type\r\nCache-Control: max-age=600\r\nConnection: close\r\n";
    print $client "Set-Cookie: hostile=header; Path=/; Secure\r\nClear-Site-Data: \"cookies\", \"storage\"\r\n";
    print $client "Service-Worker-Allowed: /\r\nStrict-Transport-Security: max-age=9\r\n\r\n";
    print $client $is_script ? $script : $page;
    exit;
}
