"""The mail server of the tests: prints the port it listens on, then each message that it takes as a line of JSON.

Arguments: a certificate and its key, and `login` (it offers STARTTLS, and takes mail only from who is logged in over
it), `open` (it offers STARTTLS and wants no login) or `tls` (TLS from the first byte on, no login).
From its standard input it reads what to refuse from now on: EHLO, AUTH, MAIL, RCPT or DATA, a line each.
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

refused = ""


class Keep:
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
        return "250 taken"


def login(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.password == b"pass phrase" and refused != "AUTH"
    return AuthResult(success=good, handled=False, auth_data=data)


def read_orders():
    global refused
    for line in sys.stdin:  # until the test ends
        refused = line.strip()
        print(json.dumps({"refused": refused}), flush=True)


async def serve(context, way):
    wants_login = {"authenticator": login, "auth_required": True} if way == "login" else {}

    def connection():
        return SMTP(Keep(), hostname="localhost", tls_context=None if way == "tls" else context, **wants_login)

    secure = context if way == "tls" else None
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0, ssl=secure)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(read_orders)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
asyncio.run(serve(context, sys.argv[3]))
