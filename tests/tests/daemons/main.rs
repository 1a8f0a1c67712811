//! Daemons that people run, configured as people do: a whole healthy life without one finding, and failures with exactly
//! theirs. Each is declared by the starter configuration of `packaging/examples`.

mod apache;
mod chrony;
mod containerd;
mod dbus;
mod dnsmasq;
mod dovecot;
mod examples;
mod gunicorn;
mod haproxy;
mod memcached;
mod monit;
mod nginx;
mod node;
mod postgresql;
mod redis;
mod rsyslog;
mod site;
mod sshd;
mod supervisord;
mod tomcat;
mod uwsgi;
