"""The mail server of the tests. It prints its port, then each accepted message as a line of JSON.

Arguments: a certificate, its key, and a mode: `login` (STARTTLS, and a login over it is required), `open` (STARTTLS,
no login) or `tls` (TLS from the first byte, no login).
Each line on standard input names the command that it refuses from then on: EHLO, AUTH, MAIL, RCPT or DATA.
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

refused = ""


class Recorder:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        if refused == "EHLO":
            return ["504 5.5.2 a full name is wanted"]
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        if refused == "MAIL":
            return "550 5.7.1 not from you"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if refused == "RCPT":
            return "550 5.1.1 no such user today"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if refused == "DATA":
            return "554 5.7.1 that is spam"
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "tls": server.transport.get_extra_info("sslcontext") is not None,
            "helo": session.host_name,
            "text": envelope.content.decode("utf-8", "replace"),
        }
        print(json.dumps(mail), flush=True)
        return "250 accepted"


def login(server, session, envelope, mechanism, data):
    is_valid = isinstance(data, LoginPassword) and data.password == b"pass phrase" and refused != "AUTH"
    return AuthResult(success=is_valid, handled=False, auth_data=data)


def read_refusals():
    global refused
    for line in sys.stdin:  # until the test ends
        refused = line.strip()
        print(json.dumps({"refused": refused}), flush=True)


async def serve(context, mode):
    login_options = {"authenticator": login, "auth_required": True} if mode == "login" else {}

    def connection():
        return SMTP(Recorder(), hostname="localhost", tls_context=None if mode == "tls" else context, **login_options)

    secure = context if mode == "tls" else None
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0, ssl=secure)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(read_refusals)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
asyncio.run(serve(context, sys.argv[3]))
