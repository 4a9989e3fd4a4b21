#!/bin/sh
# Creates the certificates for the https tests. Run it with OpenSSL 3 and commit the result.
# The keys protect nothing: they are public, and only these tests trust them.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }

cat >"$work/ca.cnf" <<END
[ca]
default_ca = tests
[tests]
database = $work/index
new_certs_dir = $work
serial = $work/serial
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = CA:FALSE
END
: >"$work/index"
echo 01 >"$work/serial"

key "$work/ca.key"
openssl req -new -key "$work/ca.key" -subj "/CN=tests of watchdog" -out "$work/ca.csr"
openssl ca -batch -notext -config "$work/ca.cnf" -selfsign -keyfile "$work/ca.key" -in "$work/ca.csr" \
    -extensions authority -startdate 20200101000000Z -enddate 21200101000000Z -out ca.pem

# name, names it is valid for, first day, last day
server() {
    key "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" -addext "subjectAltName=$2" -out "$work/$1.csr"
    openssl ca -batch -notext -config "$work/ca.cnf" -cert ca.pem -keyfile "$work/ca.key" -in "$work/$1.csr" \
        -extensions server -startdate "$3" -enddate "$4" -out "$1.pem"
}
here="DNS:localhost,IP:127.0.0.1,IP:::1"
server good "$here" 20200101000000Z 21200101000000Z
server expired "$here" 20200101000000Z 20210101000000Z
server ahead "$here" 21100101000000Z 21200101000000Z
server elsewhere "DNS:other.example" 20200101000000Z 21200101000000Z
# A quick self-signed certificate: authority and server in one.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=selfsigned \
    -addext "subjectAltName=$here" -keyout selfsigned.key -out selfsigned.pem
