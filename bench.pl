use Time::HiRes qw(time sleep); my $n=shift; my @socks=@ARGV; my %t;
for(1..$n){ for my $s (@socks){ $ENV{NIX_DAEMON_SOCKET_PATH}=$s; my $b=time; system("nix --extra-experimental-features nix-command store info --store daemon >/dev/null 2>&1")==0 or die $s; push @{$t{$s}},(time-$b)*1000; } }
for my $s (@socks){ my @a=sort{$a<=>$b}@{$t{$s}}; printf "%s: min %.1f q1 %.1f median %.1f max %.1f\n",$s,$a[0],$a[@a/4],$a[@a/2],$a[-1]; }
